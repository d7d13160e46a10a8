import { expect, test } from 'bun:test';
import type { GrammarSpec } from '../../src/sampling/structured-outputs-params.ts';
import { checkGrammarLimits } from '../../src/structured-output/grammar-limits.ts';

test.each<[string, GrammarSpec, RegExp]>([
  ['bytes', { kind: 'regex', text: 'x'.repeat((1 << 20) + 1) }, /1048577 bytes/],
  ['a zero byte', { kind: 'regex', text: 'a\0b' }, /zero byte/],
  ['brackets', { kind: 'regex', text: '('.repeat(251) }, /nests/],
  ['negations', { kind: 'lark', text: `start: A\nA: ${'~'.repeat(251)}"a"` }, /nests/],
])('%s are refused', (_, spec, message) => {
  expect(() => checkGrammarLimits(spec)).toThrow(message);
});

test('what is beside each other nests not', () => {
  expect(() => checkGrammarLimits({ kind: 'regex', text: '(a)'.repeat(1000) })).not.toThrow();
});
