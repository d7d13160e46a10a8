import { randomTokenIds, seededRandom } from '../random.ts';
import type { Peer, PeerBatch, PeerRates, PeerSession, PeerWorkload } from './peer.ts';

/** As much of the package's interface as is used here; it is no dependency of this project. */
interface LlamaModule {
  getLlama(options: { gpu: false; maxThreads: number; logLevel: string }): Promise<{
    loadModel(options: { modelPath: string }): Promise<LlamaModel>;
  }>;
}
interface LlamaModel {
  createContext(options: { contextSize: number; sequences: number; batchSize: number; threads: number }): Promise<{
    getSequence(): LlamaSequence;
  }>;
  dispose(): Promise<void>;
}
interface LlamaSequence {
  evaluate(tokens: number[], options: { temperature: number; yieldEogToken: boolean }): AsyncGenerator<number>;
  clearHistory(): Promise<void>;
}

const PACKAGE = 'node-llama-cpp';
/** Ids that every vocabulary has. */
const VOCABULARY = 2000;

async function load(): Promise<LlamaModule | null> {
  try {
    return (await import(PACKAGE)) as LlamaModule;
  } catch {
    return null;
  }
}

/** llama.cpp through node-llama-cpp, on a GGUF file of the same model. */
export const nodeLlamaCpp: Peer = {
  name: PACKAGE,
  async version({ gguf }) {
    if (gguf === null || (await load()) === null) return null;
    const { default: manifest } = (await import(`${PACKAGE}/package.json`, { with: { type: 'json' } })) as {
      default: { version: string };
    };
    return manifest.version;
  },
  async start(workload: PeerWorkload): Promise<PeerSession> {
    const { threads, maxModelLen, maxBatchSize } = workload;
    const llama = await (await load())!.getLlama({ gpu: false, maxThreads: threads, logLevel: 'error' });
    const model = await llama.loadModel({ modelPath: workload.gguf! });
    const context = await model.createContext({
      contextSize: maxModelLen,
      sequences: maxBatchSize,
      batchSize: Math.max(512, maxBatchSize),
      threads,
    });
    const sequences = Array.from({ length: maxBatchSize }, () => context.getSequence());
    const random = seededRandom(0);
    return {
      run: (batch) => runBatch(sequences.slice(0, batch.batchSize), batch, random),
      close: () => model.dispose(),
    };
  },
};

async function runBatch(sequences: LlamaSequence[], batch: PeerBatch, random: () => number): Promise<PeerRates> {
  await Promise.all(sequences.map((sequence) => sequence.clearHistory()));
  const started = performance.now();
  const firsts = await Promise.all(
    sequences.map(async (sequence) => {
      const prompt = [...randomTokenIds(random, batch.inputLen, VOCABULARY)];
      let firstMs = 0;
      let numTokens = 0;
      for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
        if (firstMs === 0) firstMs = performance.now() - started;
        if (++numTokens === batch.outputLen) break;
      }
      return firstMs;
    }),
  );
  const prefill = Math.max(...firsts) / 1000;
  const total = (performance.now() - started) / 1000;
  return {
    prefillTokensPerS: (batch.batchSize * batch.inputLen) / prefill,
    decodeTokensPerS: (batch.batchSize * (batch.outputLen - 1)) / (total - prefill),
  };
}
