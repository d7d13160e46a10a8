import { describe, expect, test } from 'bun:test';
import type { GrammarSpec } from '../../src/sampling/structured-outputs-params.ts';
import { checkGrammarLimits } from '../../src/structured-output/grammar-limits.ts';

const schema = (value: unknown): GrammarSpec => ({ kind: 'json_schema', text: JSON.stringify(value) });
const patterns = (count: number) => Array.from({ length: count }, (_, i) => ({ pattern: `.*a.{${i}}b` }));
const intersection = (count: number): GrammarSpec => ({
  kind: 'lark',
  text: `start: A\nA: ${Array.from({ length: count }, (_, i) => `/.*a.{${i}}b/`).join(' & ')}`,
});

describe('grammar limits', () => {
  test.each<[string, GrammarSpec, RegExp]>([
    ['bytes', { kind: 'regex', text: 'x'.repeat((1 << 20) + 1) }, /1048577 bytes/],
    ['a zero byte', { kind: 'regex', text: 'a\0b' }, /zero byte/],
    ['brackets', { kind: 'regex', text: '('.repeat(251) }, /nests/],
    ['negations', { kind: 'lark', text: `start: A\nA: ${'~'.repeat(251)}"a"` }, /nests/],
    ['a large multipleOf', schema({ multipleOf: 99_999_989 }), /multipleOf 99999989/],
    ['a fine multipleOf', schema({ multipleOf: 0.0999983 }), /multipleOf 0.0999983/],
    ['multiples of all', schema({ allOf: [{ multipleOf: 9973 }, { multipleOf: 997 }] }), /multipleOf 997 /],
    ['a multipleOf within Lark', { kind: 'lark', text: 'start: %json {"multipl\\u0065Of": 1e9}' }, /multipleOf 1e9/],
    ['patterns under allOf', schema({ allOf: patterns(9) }), /allOf/],
    ['intersections', intersection(9), /intersects/],
  ])('%s', (_, spec, message) => {
    expect(() => checkGrammarLimits(spec)).toThrow(message);
  });

  test.each<[string, GrammarSpec]>([
    ['usual multiples', schema({ anyOf: [0, 0.01, 0.5, 5, 60, 1000, 1e-7].map((multipleOf) => ({ multipleOf })) })],
    ['patterns that need not hold at once', schema({ anyOf: patterns(100) })],
    ['few intersections', intersection(8)],
    ['"&" in texts', { kind: 'lark', text: `start: ${JSON.stringify('&'.repeat(20))} /&&&&\\/&&&&&/` }],
    ['a field of that name', schema({ properties: { multipleOf: { type: 'string' } } })],
  ])('takes %s', (_, spec) => {
    expect(() => checkGrammarLimits(spec)).not.toThrow();
  });
});
