import { expect, test } from 'bun:test';
import { grammarSpec } from '../../src/structured-output/grammar-spec.ts';
import { largeInteger } from '../../src/structured-output/large-integer.ts';
import { xgrammarSpec } from '../../src/structured-output/xgrammar/xgrammar-spec.ts';

const parsed = (text: string): unknown => JSON.parse(text);

test.each([
  ['{"const": 9007199254740993}', '/const'],
  ['{"const": -9007199254740992}', '/const'],
  ['{"enum": ["a", 1, 18446744073709551615]}', '/enum'],
  ['{"const": {"id": [9007199254740993]}}', '/const'],
  [
    '{"properties": {"a/b": {"anyOf": [{"type": "null"}, {"const": 9007199254740993}]}}}',
    '/properties/a~1b/anyOf/1/const',
  ],
  ['{"const": 9007199254740991}', null],
  ['{"enum": [0.1, 1e-300, "9007199254740993", null, true]}', null],
  ['{"type": "integer", "maximum": 9223372036854775807}', null],
  ['{"properties": {"const": {"maximum": 9223372036854775807}}}', null],
  ['{"default": {"const": 9007199254740993}}', null],
  ['true', null],
])('%s: %p', (text, pointer) => {
  expect(largeInteger(parsed(text))).toBe(pointer);
});

test('a schema with one is refused, for each engine', () => {
  const schema = parsed('{"properties": {"id": {"const": 9007199254740993}}}');
  const options = { disableAnyWhitespace: false, disableAdditionalProperties: false, whitespacePattern: null };
  for (const specOf of [grammarSpec, xgrammarSpec]) {
    expect(() => specOf({ kind: 'json', schema }, options)).toThrow(
      'Grammar error: integers beyond 2^53 can not be told apart, so no value can be held to one (at /properties/id/const of the schema)',
    );
  }
});
