import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { openWeights } from '../../src/loader/open-weights.ts';
import { type GgufScheme, modelToGguf } from '../gguf/model-to-gguf.ts';
import type { PeerWorkload } from './peer.ts';

const SCHEMES: Readonly<Record<PeerWorkload['quantization'], GgufScheme>> = {
  none: 'BF16',
  int8: 'Q8_0',
  int4: 'Q4_0',
};

/** A model's file for engines of llama.cpp's family; `remove` it when no engine reads it any more. */
export interface Gguf {
  readonly path: string;
  remove(): void;
}

/** The file that was given, or one in a scratch folder, written from the weights that Bao has. */
export async function ggufOf(workload: PeerWorkload, given: string | null): Promise<Gguf> {
  if (given !== null) return { path: given, remove() {} };
  const scratch = mkdtempSync(join(tmpdir(), 'bao-gguf-'));
  const gguf = { path: join(scratch, 'model.gguf'), remove: () => rmSync(scratch, { recursive: true }) };
  try {
    await writeModel(workload, gguf.path);
  } catch (error) {
    gguf.remove();
    throw error;
  }
  return gguf;
}

async function writeModel({ model, dummyWeights, quantization }: PeerWorkload, path: string): Promise<void> {
  const loadFormat = dummyWeights ? 'dummy' : 'auto';
  const config = await new EngineArgs({ model, loadFormat, skipTokenizerInit: true }).createEngineConfig();
  const weights = await openWeights(config.model.folder, { loadFormat });
  try {
    modelToGguf(path, config.model.hf, weights, SCHEMES[quantization]);
  } finally {
    weights.close();
  }
}
