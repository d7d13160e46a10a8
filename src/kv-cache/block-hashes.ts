/** i32 words of a block hash: the first 128 bits of a SHA-256. */
export const HASH_WORDS = 4;

const DIGEST_BYTES = 32;

/** What a block's keys and values depend on besides its tokens. */
export interface ExtraKeys {
  /** Of the adapter as it was loaded; null: the base model. */
  loraId: number | null;
  cacheSalt: string | null;
  positionOffset: number;
}

/**
 * Hashes of a sequence's full blocks, computed as far as asked for. A block's hash covers the hash of the block before it, so equal hashes mean
 * equal tokens from the start; the chain begins with the extra keys, so adapters and salts share nothing.
 *
 * A collision would show one client's text to another, and clients choose the tokens, so the hash must resist someone who looks for
 * collisions: SHA-256 (0.2 µs for a block of 16 tokens), of which the table keeps 128 bits while the chain carries all 256.
 */
export class BlockHashes {
  private words = new Int32Array(0);
  private numBlocks = 0;
  /** Parent digest, then the block's token ids; null until the first block is hashed. */
  private input: Uint8Array | null = null;

  constructor(private readonly extraKeys: ExtraKeys) {}

  /**
   * Hashes of at least the first `floor(tokenIds.length / blockSize)` blocks, HASH_WORDS words each. Valid until the next call. tokenIds only ever
   * grows, and blockSize is the same in every call.
   */
  upTo(tokenIds: Int32Array, blockSize: number): Int32Array {
    const numBlocks = Math.floor(tokenIds.length / blockSize);
    if (numBlocks > this.numBlocks) this.extend(tokenIds, blockSize, numBlocks);
    return this.words;
  }

  private extend(tokenIds: Int32Array, blockSize: number, numBlocks: number): void {
    this.reserve(numBlocks * HASH_WORDS);
    this.input ??= rootInput(this.extraKeys, blockSize);
    const input = this.input;
    const parent = input.subarray(0, DIGEST_BYTES);
    const digest = new Int32Array(input.buffer, 0, HASH_WORDS);
    const blockTokens = new Int32Array(input.buffer, DIGEST_BYTES, blockSize);
    for (let block = this.numBlocks; block < numBlocks; block++) {
      const start = block * blockSize;
      for (let i = 0; i < blockSize; i++) blockTokens[i] = tokenIds[start + i]!;
      Bun.SHA256.hash(input, parent);
      for (let i = 0; i < HASH_WORDS; i++) this.words[block * HASH_WORDS + i] = digest[i]!;
    }
    this.numBlocks = numBlocks;
  }

  private reserve(length: number): void {
    if (length <= this.words.length) return;
    const grown = new Int32Array(Math.max(length, this.words.length * 2));
    grown.set(this.words.subarray(0, this.numBlocks * HASH_WORDS));
    this.words = grown;
  }
}

function rootInput({ loraId, cacheSalt, positionOffset }: ExtraKeys, blockSize: number): Uint8Array {
  const input = new Uint8Array(DIGEST_BYTES + 4 * blockSize);
  Bun.SHA256.hash(JSON.stringify([loraId, cacheSalt, positionOffset]), input.subarray(0, DIGEST_BYTES));
  return input;
}
