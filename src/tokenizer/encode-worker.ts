import { parentPort } from 'node:worker_threads';
import { createTokenizer } from './create-tokenizer.ts';
import type { EncodeAnswer, EncodeRequest } from './tokenizer-pool.ts';

/** A Worker of {@link TokenizerPool}: encodes texts with a tokenizer of its own, in the order they come. */

let tokenizer: ReturnType<typeof createTokenizer> | null = null;

parentPort?.on('message', async ({ id, text, addSpecialTokens, source }: EncodeRequest) => {
  try {
    tokenizer ??= createTokenizer(source.folder, { mode: source.mode });
    const ids = (await tokenizer).encode(text, { addSpecialTokens });
    parentPort?.postMessage({ id, ids, error: null } satisfies EncodeAnswer, [ids.buffer as ArrayBuffer]);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    parentPort?.postMessage({ id, ids: null, error: reason } satisfies EncodeAnswer);
  }
});
