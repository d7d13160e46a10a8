import { describe, expect, test } from 'bun:test';
import * as xgrammar from '@mlc-ai/web-xgrammar';
import { inexactKeyword } from '../../src/structured-output/xgrammar/inexact-keyword.ts';

/** A schema, texts that it allows, texts that it forbids. */
const EXACT: [schema: object, allowed: string[], forbidden: string[]][] = [
  [{ type: 'string' }, ['"a"', '""'], ['1', 'null']],
  [{ type: 'string', minLength: 2, maxLength: 3 }, ['"ab"', '"abc"'], ['"a"', '"abcd"']],
  [{ type: 'integer' }, ['-3', '0'], ['1.5', '"1"', '01']],
  [{ type: 'number' }, ['1.5', '-2', '1e3'], ['"1"', '.5']],
  [{ type: ['boolean', 'null'] }, ['true', 'null'], ['1', '"true"']],
  [
    { type: 'array', items: { type: 'integer' }, minItems: 2, maxItems: 3 },
    ['[1,2]', '[1, 2, 3]'],
    ['[1]', '[1,2,3,4]', '["a","b"]'],
  ],
  [
    { type: 'array', prefixItems: [{ type: 'integer' }, { type: 'null' }], items: false },
    ['[1,null]'],
    ['[null,1]', '[1,null,2]'],
  ],
  [
    { type: 'object', properties: { a: { type: 'integer' }, b: {} }, required: ['a'], additionalProperties: false },
    ['{"a":1}', '{"a":1,"b":[]}'],
    ['{}', '{"b":1}', '{"a":"x"}', '{"a":1,"c":2}'],
  ],
  [{ type: 'object', properties: { a: {} }, additionalProperties: false }, ['{}', '{"a":1}'], ['{"b":1}']],
  [{ type: 'object', additionalProperties: { type: 'string' } }, ['{"x":"y"}'], ['{"x":1}']],
  [{ enum: ['a', 1, null] }, ['"a"', '1', 'null'], ['"b"', '2']],
  [{ const: 'x' }, ['"x"'], ['"y"']],
  [{ anyOf: [{ type: 'string' }, { type: 'null' }] }, ['"a"', 'null'], ['1']],
  [{ $ref: '#/$defs/n', $defs: { n: { type: 'integer' } } }, ['1'], ['"a"']],
];

/** What XGrammar takes and does not keep to. */
const INEXACT: [keyword: string, schema: object, passes: string][] = [
  ['uniqueItems', { type: 'array', items: { type: 'integer' }, uniqueItems: true }, '[1,1]'],
  ['not', { not: { type: 'string' } }, '"a"'],
  ['oneOf', { oneOf: [{ type: 'integer' }, { type: 'number' }] }, '1'],
  ['minimum', { type: 'integer', minimum: 3, maximum: 120 }, '121'],
  ['multipleOf', { type: 'integer', multipleOf: 5 }, '3'],
  ['required', { type: 'object', required: ['z'] }, '{}'],
  ['additionalProperties', { type: 'object', properties: { a: { type: 'integer' } } }, '{"a":"x"}'],
  ['type', { type: 'string', enum: ['a', 1] }, '1'],
  ['properties', { properties: { a: { type: 'integer' } }, anyOf: [{ type: 'object' }] }, '{"a":"x"}'],
];

async function accepts(schema: object, text: string): Promise<boolean> {
  const grammar = await xgrammar.Grammar.fromJSONSchema(JSON.stringify(schema), true, -1, [', ', ': '], false);
  return xgrammar.Testings.isGrammarAcceptString(grammar, text);
}

describe('what XGrammar keeps to exactly', () => {
  test.each(EXACT)('%j', async (schema, allowed, forbidden) => {
    expect(inexactKeyword(schema)).toBeNull();
    for (const text of allowed) expect(await accepts(schema, text), text).toBe(true);
    for (const text of forbidden) expect(await accepts(schema, text), text).toBe(false);
  });

  test.each(INEXACT)('%s is named', async (keyword, schema, passes) => {
    expect(inexactKeyword(schema)).toBe(keyword);
    expect(await accepts(schema, passes)).toBe(true);
  });

  test('wherever it is, but for where it is a name', () => {
    const inner = { type: 'array', uniqueItems: true };
    for (const schema of [
      { type: 'object', properties: { a: inner }, additionalProperties: false },
      { type: 'object', additionalProperties: inner },
      { type: 'array', items: { anyOf: [{ type: 'null' }, inner] } },
      { type: 'array', prefixItems: [inner] },
      { $ref: '#/$defs/a', $defs: { a: inner } },
    ]) {
      expect(inexactKeyword(schema)).toBe('uniqueItems');
    }
    expect(
      inexactKeyword({ type: 'object', properties: { not: {}, uniqueItems: {} }, additionalProperties: false }),
    ).toBeNull();
    expect(inexactKeyword({ title: 'x', description: 'y', default: { not: 1 } })).toBeNull();
    for (const odd of [true, null, 3, [], { type: 3 }, { properties: null }])
      expect(() => inexactKeyword(odd)).not.toThrow();
  });
});
