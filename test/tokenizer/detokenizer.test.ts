import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import { createDetokenizer, type DetokenizerOptions } from '../../src/tokenizer/detokenizer.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { awkwardText } from './texts.ts';
import { DEMO, sentencePieceTokenizer, withTokenizerFolder, wordPieceTokenizer } from './tokenizer-folder.ts';

const demo = await createTokenizer(DEMO, { mode: 'js' });
const fromFiles = (json: unknown) =>
  withTokenizerFolder({ 'tokenizer.json': json }, (folder) => createTokenizer(folder, { mode: 'js' }));
const sentencePiece = await fromFiles(sentencePieceTokenizer());
const wordPiece = await fromFiles(wordPieceTokenizer());
const tokenizers: [string, Tokenizer][] = [
  ['byte-level', demo],
  ['SentencePiece', sentencePiece],
  ['WordPiece', wordPiece],
];

const options = (changes: Partial<DetokenizerOptions> = {}): DetokenizerOptions => ({
  skipSpecialTokens: true,
  spacesBetweenSpecialTokens: true,
  ...changes,
});

/** The texts of each step, the flushed rest last. */
function stream(tokenizer: Tokenizer, steps: number[][], given: DetokenizerOptions): string[] {
  const detokenizer = createDetokenizer(tokenizer, given);
  return [...steps.map((ids) => detokenizer.push(ids)), detokenizer.finish()];
}

describe.each(tokenizers)('%s', (_name, tokenizer) => {
  const steps = fc.array(fc.array(fc.nat(tokenizer.vocabSize + 1), { maxLength: 4 }), { maxLength: 30 });

  test('any ids in any steps: the pieces are the text', () => {
    fc.assert(
      fc.property(steps, fc.boolean(), (pieces, skipSpecialTokens) => {
        const text = stream(tokenizer, pieces, options({ skipSpecialTokens })).join('');
        expect(text).toBe(tokenizer.decode(pieces.flat(), { skipSpecialTokens }));
      }),
      { numRuns: 500 },
    );
  });

  test('a piece never ends or begins within a character', () => {
    fc.assert(
      fc.property(awkwardText, (text) => {
        const ids = [...tokenizer.encode(text, { addSpecialTokens: false })];
        const pieces = stream(
          tokenizer,
          ids.map((id) => [id]),
          options({ skipSpecialTokens: false }),
        );
        const numReplaced = (value: string) => value.split('\uFFFD').length;
        expect(pieces.every((piece) => piece.isWellFormed())).toBe(true);
        expect(numReplaced(pieces.join(''))).toBe(numReplaced(tokenizer.decode(ids, { skipSpecialTokens: false })));
      }),
      { numRuns: 200 },
    );
  });
});

test('an emoji of several tokens comes whole, or as U+FFFD when the text ends in it', () => {
  const ids = [...demo.encode('a😀b', { addSpecialTokens: false })];
  const [first, ...rest] = stream(
    demo,
    ids.map((id) => [id]),
    options(),
  );
  expect(first).toBe('a');
  expect(rest.filter((piece) => piece !== '')).toEqual(['😀', 'b']);
  expect(stream(demo, [ids.slice(0, -2)], options())).toEqual(['a', '\uFFFD']);
});

test("the first word keeps its space behind a prompt, and loses it at a text's start", () => {
  const hello = sentencePiece.tokenToId('▁hello')!;
  const wo = sentencePiece.tokenToId('▁wo')!;
  expect(stream(sentencePiece, [[hello], [wo]], options())).toEqual(['hello', ' wo', '']);
  expect(stream(sentencePiece, [[hello], [wo]], options({ promptTokenIds: [1, hello] }))).toEqual([
    ' hello',
    ' wo',
    '',
  ]);
  // What is skipped is no text before.
  expect(stream(sentencePiece, [[1], [hello]], options({ promptTokenIds: [1] }))).toEqual(['', 'hello', '']);
  expect(stream(wordPiece, [[3], [6]], options({ promptTokenIds: [4, 5] }))).toEqual([' hello', 's', '']);
});

test('spaces between special tokens, where the decoder puts them', () => {
  const ids = [[1], [2], [3]];
  expect(stream(wordPiece, ids, options({ skipSpecialTokens: false }))).toEqual(['[CLS]', ' [SEP]', ' hello', '']);
  const without = options({ skipSpecialTokens: false, spacesBetweenSpecialTokens: false });
  expect(stream(wordPiece, ids, without)).toEqual(['[CLS]', '[SEP]', ' hello', '']);
});

test('the work for a token does not grow with the text before it', () => {
  let numDecoded = 0;
  const counting: Tokenizer = {
    ...wordPiece,
    specialTokenIds: wordPiece.specialTokenIds,
    byteDecoding: null,
    idToToken: (id) => wordPiece.idToToken(id),
    decode(ids, decodeOptions) {
      numDecoded += ids.length;
      return wordPiece.decode(ids, decodeOptions);
    },
  } as Tokenizer;
  const detokenizer = createDetokenizer(counting, options());
  for (let i = 0; i < 10_000; i++) detokenizer.push([3]);
  expect(numDecoded).toBeLessThan(10_000 * 4);
});
