import { join } from 'node:path';
import { randomTokenIds, seededRandom } from '../random.ts';
import type { PeerBatch } from './peer.ts';

/** A process of its own, `node-llama-cpp-process.ts ARGUMENTS`: loads a model, tells that it is ready, then runs the batches that it is sent. */
export interface LlamaArguments {
  packageFolder: string;
  gguf: string;
  threads: number;
}

/** What to run, in a context that was made for another batch: the one to come. */
export interface LlamaRequest {
  batch: PeerBatch;
  contextFor: PeerBatch;
}

export type LlamaMessage =
  | { type: 'ready' }
  /** Of each sequence: seconds from the batch's start to each token. */
  | { type: 'arrivals'; sequences: number[][] }
  | { type: 'failed'; reason: string };

/** As much of the package's interface as is used here; it is no dependency of this project. */
interface LlamaModule {
  getLlama(options: { gpu: false; maxThreads: number; build: 'never'; logLevel: 'error' }): Promise<{
    loadModel(options: { modelPath: string }): Promise<LlamaModel>;
  }>;
}
interface LlamaModel {
  createContext(options: LlamaContextOptions): Promise<LlamaContext>;
}
interface LlamaContextOptions {
  /** Tokens of each sequence. */
  contextSize: number;
  sequences: number;
  /** Most tokens of a step. */
  batchSize: number;
  threads: number;
}
interface LlamaContext {
  getSequence(): LlamaSequence;
  dispose(): Promise<void>;
}
interface LlamaSequence {
  evaluate(tokens: number[], options: { temperature: number; yieldEogToken: boolean }): AsyncGenerator<number>;
  clearHistory(): Promise<void>;
}

/** Ids that every vocabulary has. */
const VOCABULARY = 2000;
/** Its own default, and more sequences than that where they are asked for. */
const MIN_STEP_TOKENS = 512;

const options = JSON.parse(process.argv[2]!) as LlamaArguments;
const random = seededRandom(0);

/** Contexts have the size of a batch, or the keys and values of the longest prompt would be kept as often as the largest batch has sequences. */
class Contexts {
  private context: LlamaContext | null = null;
  private sequences: LlamaSequence[] = [];
  private key = '';

  constructor(private readonly model: LlamaModel) {}

  async sequencesFor({ batchSize, inputLen, outputLen }: PeerBatch): Promise<LlamaSequence[]> {
    const key = `${batchSize} ${inputLen + outputLen}`;
    if (key !== this.key) {
      await this.context?.dispose();
      const context = await this.model.createContext({
        contextSize: inputLen + outputLen,
        sequences: batchSize,
        batchSize: Math.max(MIN_STEP_TOKENS, batchSize),
        threads: options.threads,
      });
      this.context = context;
      this.sequences = Array.from({ length: batchSize }, () => context.getSequence());
      this.key = key;
    }
    await Promise.all(this.sequences.map((sequence) => sequence.clearHistory()));
    return this.sequences;
  }
}

async function runBatch(sequences: readonly LlamaSequence[], batch: PeerBatch): Promise<number[][]> {
  const started = performance.now();
  const runs = await Promise.allSettled(
    sequences.map(async (sequence) => {
      const prompt = [...randomTokenIds(random, batch.inputLen, VOCABULARY)];
      const times: number[] = [];
      for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
        times.push((performance.now() - started) / 1000);
        if (times.length === batch.outputLen) break;
      }
      return times;
    }),
  );
  // Where one fails, the others must have ended before the next batch.
  return runs.map((run) => {
    if (run.status === 'rejected') throw run.reason;
    return run.value;
  });
}

const tell = (message: LlamaMessage) => process.send!(message);

try {
  const { getLlama } = (await import(join(options.packageFolder, 'dist/index.js'))) as LlamaModule;
  const llama = await getLlama({ gpu: false, maxThreads: options.threads, build: 'never', logLevel: 'error' });
  const contexts = new Contexts(await llama.loadModel({ modelPath: options.gguf }));
  process.on('message', async ({ batch, contextFor }: LlamaRequest) => {
    try {
      tell({ type: 'arrivals', sequences: await runBatch(await contexts.sequencesFor(contextFor), batch) });
    } catch (error) {
      tell({ type: 'failed', reason: String(error) });
    }
  });
  tell({ type: 'ready' });
} catch (error) {
  tell({ type: 'failed', reason: String(error) });
}
