import { expect, test } from 'bun:test';
import fc from 'fast-check';
import { AddedTokenSplitter } from '../../src/tokenizer/added-token-splitter.ts';

function splitterOf(tokens: readonly string[]): (text: string) => (string | number)[] {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const splitter = new AddedTokenSplitter(tokens.map((content, id) => ({ id, content, ...flags })));
  return (text) => {
    const pieces: (string | number)[] = [];
    splitter.split(
      text,
      (piece) => pieces.push(piece),
      (id) => pieces.push(id),
    );
    return pieces;
  };
}

test('of tokens that begin at a place the longest counts, and tokens that began are not looked into', () => {
  const split = splitterOf(['<a>', '<a><b>', 'b>x', '\n\n']);
  expect(split('1<a><b>x<a>2\n\n\n')).toEqual(['1', 1, 'x', 0, '2', 3, '\n']);
  expect(split('<a')).toEqual(['<a']);
  expect(split('<a>')).toEqual([0]);
  expect(split('')).toEqual([]);
});

test('what characters mean in expressions means nothing here', () => {
  const split = splitterOf(['[x]', '^', '\\d', ']', '-', '😀']);
  expect(split('a^b\\dc[x]-]9😀😁')).toEqual(['a', 1, 'b', 2, 'c', 0, 4, 3, '9', 5, '😁']);
});

test('without tokens a text is one piece', () => {
  expect(splitterOf([])('any <text>')).toEqual(['any <text>']);
  expect(splitterOf([''])('any')).toEqual(['any']);
});

test('pieces joined are the text, and none of those between tokens has one', () => {
  const words = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '<', '>'), minLength: 1, maxLength: 4 }), {
    maxLength: 5,
  });
  fc.assert(
    fc.property(words, fc.string({ unit: fc.constantFrom('a', 'b', '<', '>'), maxLength: 40 }), (tokens, text) => {
      const pieces = splitterOf(tokens)(text);
      expect(pieces.map((piece) => (typeof piece === 'number' ? tokens[piece]! : piece)).join('')).toBe(text);
      for (const piece of pieces) {
        if (typeof piece === 'string') expect(tokens.some((token) => piece.includes(token))).toBe(false);
      }
    }),
  );
});
