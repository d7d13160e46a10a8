import { expect, test } from 'bun:test';
import { setImmediate } from 'node:timers/promises';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import { decodeInSlices } from '../../src/tokenizer/decode-in-slices.ts';
import { DEMO, withTokenizerFolder, wordPieceTokenizer } from './tokenizer-folder.ts';

const tokenizers = {
  'byte-level': await createTokenizer(DEMO, { mode: 'js' }),
  WordPiece: await withTokenizerFolder({ 'tokenizer.json': wordPieceTokenizer() }, (folder) =>
    createTokenizer(folder, { mode: 'js' }),
  ),
};

test.each(Object.entries(tokenizers))(
  '%s: the text is that of all ids, and others have turns',
  async (_, tokenizer) => {
    for (const length of [0, 1, 100_000]) {
      const ids = Array.from({ length }, (_, i) => (i * 7) % tokenizer.vocabSize);
      let isDone = false;
      const decoding = decodeInSlices(tokenizer, ids).finally(() => {
        isDone = true;
      });
      let numTurns = 0;
      for (; !isDone; numTurns++) await setImmediate();
      expect(await decoding).toBe(tokenizer.decode(ids, { skipSpecialTokens: false }));
      expect(numTurns).toBeGreaterThanOrEqual(length === 100_000 ? 10 : 0);
    }
  },
);
