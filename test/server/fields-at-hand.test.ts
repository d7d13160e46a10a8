import { expect, test } from 'bun:test';
import fc from 'fast-check';
import * as v from 'valibot';
import { chatCompletionSchema } from '../../src/server/protocol/chat-completion.ts';
import { completionSchema } from '../../src/server/protocol/completion.ts';
import { fieldsAtHand } from '../../src/server/protocol/fields-at-hand.ts';
import { responsesSchema } from '../../src/server/protocol/responses.ts';

const SCHEMAS = { chatCompletionSchema, completionSchema, responsesSchema };
const VALUES: unknown[] = [
  null,
  true,
  1,
  -1,
  0.5,
  '1',
  'low',
  '',
  [],
  [1],
  ['a'],
  {},
  { a: 1 },
  [{ role: 'user', content: 'Hi' }],
];

test.each(Object.entries(SCHEMAS))('the same is found as by all of %s', (_, schema) => {
  const names = [...Object.keys(schema.entries), 'unknown', 'constructor'];
  const body = fc.dictionary(fc.constantFrom(...names), fc.constantFrom(...VALUES), { maxKeys: 12 });
  fc.assert(
    fc.property(body, (given) => {
      const whole = v.safeParse(schema as v.GenericSchema, given);
      const atHand = v.safeParse(fieldsAtHand(schema as v.GenericSchema, given), given);
      expect(atHand.output).toEqual(whole.output);
      expect(Object.keys((atHand.output ?? {}) as object)).toEqual(Object.keys((whole.output ?? {}) as object));
      expect(findings(atHand)).toEqual(findings(whole));
    }),
    { numRuns: 500 },
  );
});

test('a form of body is made once', () => {
  const body = { model: 'demo', messages: [] };
  const atHand = fieldsAtHand(chatCompletionSchema, body);
  expect(fieldsAtHand(chatCompletionSchema, { ...body, model: 'other' })).toBe(atHand);
  expect(Object.keys(atHand.entries).length).toBeLessThan(10);
  expect(fieldsAtHand(chatCompletionSchema, { ...body, n: 1 })).not.toBe(atHand);
});

test('a schema of another form is left as it is', () => {
  const schema = v.pipe(
    v.object({ a: v.optional(v.string()) }),
    v.check(() => true),
  );
  expect(fieldsAtHand(schema, {})).toBe(schema);
});

function findings({ issues }: v.SafeParseResult<v.GenericSchema>): unknown {
  return issues?.map(({ message, path }) => [message, path?.map(({ key }) => key)]);
}
