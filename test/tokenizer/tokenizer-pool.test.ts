import { describe, expect, test } from 'bun:test';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { TokenizerPool } from '../../src/tokenizer/tokenizer-pool.ts';
import { DEMO, withTokenizerFolder } from './tokenizer-folder.ts';

const tokenizer = await createTokenizer(DEMO, { mode: 'js' });
const source = { folder: DEMO, mode: 'js' } as const;
const LONG = 'A somewhat longer text. '.repeat(100);
const plain = { addSpecialTokens: false };

/** A tokenizer that tells how often the calling thread encoded. */
function watched(): { tokenizer: Tokenizer; calls: string[] } {
  const calls: string[] = [];
  const encode: Tokenizer['encode'] = (text, options) => {
    calls.push(text);
    return tokenizer.encode(text, options);
  };
  return { tokenizer: Object.assign(Object.create(tokenizer), { encode }), calls };
}

describe('TokenizerPool', () => {
  test('long texts are encoded elsewhere, short ones here, with the same ids', async () => {
    const here = watched();
    const pool = new TokenizerPool(here.tokenizer, { ...source, threshold: 100, numWorkers: 2 });
    try {
      const texts = ['short', LONG, 'also short', LONG.toUpperCase(), LONG.repeat(3)];
      const ids = await Promise.all(texts.map((text) => pool.encode(text, plain)));
      expect(ids).toEqual(texts.map((text) => tokenizer.encode(text, plain)));
      expect(here.calls).toEqual(['short', 'also short']);
    } finally {
      pool.close();
    }
  });

  test('the native tokenizer needs no Worker', async () => {
    const pool = new TokenizerPool(await createTokenizer(DEMO, { mode: 'native' }), {
      folder: '/nowhere',
      mode: 'native',
      threshold: 0,
    });
    expect(await pool.encode(LONG, plain)).toEqual(tokenizer.encode(LONG, plain));
    pool.close();
  });

  test("a Worker's failure is the caller's error", async () => {
    await withTokenizerFolder({}, async (folder) => {
      const pool = new TokenizerPool(tokenizer, { folder, mode: 'js', threshold: 0 });
      await expect(pool.encode(LONG, plain)).rejects.toThrow('there is no tokenizer.json');
      pool.close();
    });
  });

  test('closing rejects what is under way and what comes', async () => {
    const pool = new TokenizerPool(tokenizer, { ...source, threshold: 0 });
    const pending = pool.encode(LONG, plain).catch((error: Error) => error.message);
    await Promise.resolve();
    pool.close();
    expect(await pending).toBe('The tokenizer pool is closed.');
    await expect(pool.encode('x', plain)).rejects.toThrow('closed');
  });
});
