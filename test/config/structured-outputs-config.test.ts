import { expect, test } from 'bun:test';
import { readStructuredOutputsConfig } from '../../src/config/structured-outputs-config.ts';

test('what is not given has its default', () => {
  expect(readStructuredOutputsConfig({ backend: 'guidance', disable_any_whitespace: true })).toEqual({
    backend: 'guidance',
    disableAnyWhitespace: true,
    disableAdditionalProperties: false,
  });
});

test.each<[Record<string, unknown>, string]>([
  [{ backend: 'outlines' }, 'one of auto, guidance, xgrammar, not "outlines"'],
  [{ disable_any_whitespace: 1 }, 'true or false, not 1'],
  [{ reasoning: true }, 'has no reasoning'],
])('%j is refused', (given, message) => {
  expect(() => readStructuredOutputsConfig(given)).toThrow(message);
});
