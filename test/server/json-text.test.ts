import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { jsonText } from '../../src/server/answers/json-text.ts';

test('a remembered text is written as JSON.stringify writes it', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 40 }), (text) => {
      expect(jsonText(text)).toBe(JSON.stringify(text));
      expect(jsonText(text)).toBe(JSON.stringify(text));
    }),
  );
  for (const text of ['', '"', '\\', '\n', '\u2028', '\ud83d', '</script>'])
    expect(jsonText(text)).toBe(JSON.stringify(text));
});
