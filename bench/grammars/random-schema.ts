import { type Random, randomInt } from '../random.ts';

const MAX_FIELDS = 20;

/** An object of 1 to 20 fields of the kinds that clients ask for; `index` makes it one that no cache has. */
export function randomSchema(random: Random, index: number): object {
  const kinds: (() => object)[] = [
    () => ({ type: 'string' }),
    () => ({ type: 'string', maxLength: randomInt(random, 1, 100) }),
    () => ({ type: 'integer', minimum: randomInt(random, -100, 0), maximum: randomInt(random, 1, 10_000) }),
    () => ({ type: 'number' }),
    () => ({ type: 'boolean' }),
    () => ({ enum: Array.from({ length: randomInt(random, 1, 12) }, (_, i) => `value ${i}`) }),
    () => ({ type: 'string', pattern: `^[A-Z]{${randomInt(random, 1, 4)}}-[0-9]{1,6}$` }),
    () => ({ type: 'string', format: 'date-time' }),
    () => ({ type: 'array', items: { type: 'string' }, maxItems: randomInt(random, 1, 10) }),
    () => ({ anyOf: [{ type: 'null' }, { type: 'object', properties: { id: { type: 'integer' } } }] }),
  ];
  const names = Array.from({ length: randomInt(random, 1, MAX_FIELDS) }, (_, i) => `field_${index}_${i}`);
  return {
    type: 'object',
    properties: Object.fromEntries(names.map((name) => [name, kinds[randomInt(random, 0, kinds.length - 1)]!()])),
    required: names.filter(() => random() < 0.7),
    additionalProperties: false,
  };
}
