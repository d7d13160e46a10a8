import { describe, expect, test } from 'bun:test';
import { createHash } from 'node:crypto';
import { BlockHashes, type ExtraKeys, HASH_WORDS } from '../../src/kv-cache/block-hashes.ts';

const PLAIN: ExtraKeys = { loraId: null, cacheSalt: null, positionOffset: 0 };
const TOKENS = Int32Array.from({ length: 40 }, (_, i) => i * 1000 - 3);

function blocks(tokens: Int32Array, blockSize: number, extraKeys = PLAIN): number[][] {
  const words = new BlockHashes(extraKeys).upTo(tokens, blockSize);
  return Array.from({ length: Math.floor(tokens.length / blockSize) }, (_, i) => [
    ...words.subarray(i * HASH_WORDS, (i + 1) * HASH_WORDS),
  ]);
}

function sha256(...parts: (Uint8Array | string)[]): Uint8Array {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
}

describe('BlockHashes', () => {
  test('is a chain of SHA-256 over the parent digest and the token ids', () => {
    const root = sha256('[null,null,0]');
    const bytes = new Uint8Array(TOKENS.buffer);
    const first = sha256(root, bytes.subarray(0, 64));
    const second = sha256(first, bytes.subarray(64, 128));
    const expected = [first, second].map((digest) => [...new Int32Array(digest.buffer, 0, HASH_WORDS)]);
    expect(blocks(TOKENS, 16)).toEqual(expected);
  });

  test('gives the same hashes computed at once or as the tokens come', () => {
    const hashes = new BlockHashes(PLAIN);
    let last = hashes.upTo(TOKENS.subarray(0, 3), 4);
    for (let length = 4; length <= 40; length++) last = hashes.upTo(TOKENS.subarray(0, length), 4);
    expect([...last.subarray(0, 10 * HASH_WORDS)]).toEqual(blocks(TOKENS, 4).flat());
  });

  test('a token changes its own block and all behind it, none before', () => {
    const other = TOKENS.slice();
    other[9]!++;
    const differs = blocks(TOKENS, 4).map((hash, i) => hash.join() !== blocks(other, 4)[i]!.join());
    expect(differs).toEqual([false, false, true, true, true, true, true, true, true, true]);
  });

  test('adapter, salt and position offset change every block, and are not confused with each other', () => {
    const variants: ExtraKeys[] = [
      PLAIN,
      { ...PLAIN, loraId: 1 },
      { ...PLAIN, cacheSalt: 'a' },
      { ...PLAIN, loraId: 1, cacheSalt: 'a' },
      { ...PLAIN, cacheSalt: '1' },
      { ...PLAIN, positionOffset: 4096 },
    ];
    const all = variants.flatMap((extraKeys) => blocks(TOKENS, 8, extraKeys).map((hash) => hash.join()));
    expect(new Set(all).size).toBe(variants.length * 5);
  });
});
