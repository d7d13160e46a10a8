import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { schemaFault } from '../../src/structured-output/schema-fault.ts';

type Json = Record<string, unknown>;
const FAULT = { type: 'objekt' };
const MESSAGE = 'Invalid type: objekt';

/** An engine that refuses a schema for `FAULT` anywhere in it, or behind its references to definitions. */
const judge = async (schema: Json) => (holds(schema, schema) ? MESSAGE : null);

function holds(value: unknown, root: Json): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { type, $ref } = value as Json;
  if (type === FAULT.type) return true;
  if (typeof $ref === 'string') return holds((root.$defs as Json)[$ref.slice('#/$defs/'.length)], root);
  // Definitions count where they are referred to.
  return Object.entries(value).some(([key, part]) => key !== '$defs' && holds(part, root));
}

/** What is around the fault: keyword, its neighbours and, where they have names, its own. */
const layer = fc.oneof(
  fc.record({
    keyword: fc.constantFrom('properties', 'patternProperties'),
    key: fc.string({ minLength: 1 }).filter((key) => key !== '__proto__'),
    others: fc.nat(40),
  }),
  fc.record({
    keyword: fc.constantFrom('anyOf', 'oneOf', 'allOf', 'prefixItems'),
    key: fc.nat(8),
    others: fc.nat(8),
  }),
  fc.record({
    keyword: fc.constantFrom('items', 'not', 'additionalProperties'),
    key: fc.constant(''),
    others: fc.nat(0),
  }),
);

test('the fault is found however deep it is and whatever is beside it', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(layer, { minLength: 1, maxLength: 6 }), async (layers) => {
      let schema: Json = FAULT;
      let pointer = '';
      for (const { keyword, key, others } of layers) {
        if (typeof key === 'number') {
          const list = Array.from({ length: others + key + 1 }, () => ({ type: 'string' }) as Json);
          list[key] = schema;
          schema = { [keyword]: list };
          pointer = `/${keyword}/${key}${pointer}`;
        } else if (key === '') {
          schema = { [keyword]: schema };
          pointer = `/${keyword}${pointer}`;
        } else {
          const named = Array.from({ length: others }, (_, i) => [`${i}.`, { type: 'string' }]);
          schema = { type: 'object', [keyword]: { ...Object.fromEntries(named), [key]: schema } };
          pointer = `/${keyword}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}${pointer}`;
        }
      }
      expect(await schemaFault(schema, MESSAGE, judge, Number.POSITIVE_INFINITY)).toBe(pointer);
    }),
    { numRuns: 200 },
  );
});

test('a wrong definition is told, not what refers to it', async () => {
  const schema = { $defs: { a: { type: 'string' }, b: { items: FAULT } }, properties: { x: { $ref: '#/$defs/b' } } };
  expect(await schemaFault(schema, MESSAGE, judge, Number.POSITIVE_INFINITY)).toBe('/$defs/b/items');
});

test('a fault of the whole has no place, nor has one that nobody finds again', async () => {
  expect(await schemaFault(FAULT, MESSAGE, judge, Number.POSITIVE_INFINITY)).toBeNull();
  expect(await schemaFault({ properties: { x: FAULT } }, MESSAGE, async () => null)).toBeNull();
  expect(await schemaFault(true, MESSAGE, judge, Number.POSITIVE_INFINITY)).toBeNull();
});

test('the search has an end, and tells how far it came', async () => {
  let numCompiles = 0;
  const counting = (schema: Json) => {
    numCompiles++;
    return judge(schema);
  };
  let schema: Json = FAULT;
  for (let i = 0; i < 500; i++) schema = { properties: { x: schema } };
  expect(await schemaFault(schema, MESSAGE, counting, Number.POSITIVE_INFINITY)).toMatch(/^(\/properties\/x)+$/);
  expect(numCompiles).toBeLessThanOrEqual(100);
});
