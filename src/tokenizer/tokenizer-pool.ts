import { Worker } from 'node:worker_threads';
import { SOURCE_URL } from '../package-layout.ts';
import type { TokenizerMode } from './create-tokenizer.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Longer texts are encoded off the main thread: up to here it takes a few milliseconds, about as long as the hand-over is worth. */
const DEFAULT_THRESHOLD = 8192;

/** What a Worker needs to make its own tokenizer. */
export interface TokenizerSource {
  folder: string;
  mode: TokenizerMode;
}

export interface TokenizerPoolOptions extends TokenizerSource {
  /** Most Workers at a time. Default 1. */
  numWorkers?: number;
  /** Texts of more UTF-16 units than this go to a Worker. */
  threshold?: number;
}

/** To a Worker. */
export interface EncodeRequest {
  id: number;
  text: string;
  addSpecialTokens: boolean;
  source: TokenizerSource;
}

/** From a Worker. */
export type EncodeAnswer = { id: number; ids: Int32Array; error: null } | { id: number; ids: null; error: string };

/** Encodes prompts without keeping the calling thread: short ones at once, long ones on Workers that start when first needed. */
export class TokenizerPool {
  readonly #workers: EncodeWorker[] = [];
  readonly #source: TokenizerSource;
  readonly #numWorkers: number;
  readonly #threshold: number;
  #closed = false;

  constructor(
    private readonly tokenizer: Tokenizer,
    options: TokenizerPoolOptions,
  ) {
    this.#source = { folder: options.folder, mode: options.mode };
    this.#numWorkers = options.numWorkers ?? 1;
    this.#threshold = options.threshold ?? DEFAULT_THRESHOLD;
  }

  /** Rejects when the tokenizer fails, and after {@link close}. */
  async encode(text: string, options: { addSpecialTokens: boolean }): Promise<Int32Array> {
    if (this.#closed) throw new Error('The tokenizer pool is closed.');
    if (this.tokenizer.encodeAsync !== undefined) return this.tokenizer.encodeAsync(text, options);
    if (text.length <= this.#threshold) return this.tokenizer.encode(text, options);
    return this.#leastBusy().encode(text, options.addSpecialTokens);
  }

  /** Ends the Workers; what they still have is rejected. */
  close(): void {
    this.#closed = true;
    for (const worker of this.#workers) worker.close();
    this.#workers.length = 0;
  }

  #leastBusy(): EncodeWorker {
    const idle = this.#workers.find((worker) => worker.numPending === 0);
    if (idle !== undefined) return idle;
    if (this.#workers.length < this.#numWorkers) {
      const worker = new EncodeWorker(this.#source, () => this.#workers.splice(this.#workers.indexOf(worker), 1));
      this.#workers.push(worker);
      return worker;
    }
    return this.#workers.reduce((best, worker) => (worker.numPending < best.numPending ? worker : best));
  }
}

class EncodeWorker {
  readonly #worker: Worker;
  readonly #pending = new Map<number, PromiseWithResolvers<Int32Array>>();
  #nextId = 1;
  #closed = false;
  /** Has answered once, so that it is past loading: ending a Worker before that has crashed Bun. */
  #started = false;

  constructor(
    private readonly source: TokenizerSource,
    onDied: () => void,
  ) {
    this.#worker = new Worker(new URL('tokenizer/encode-worker.ts', SOURCE_URL));
    this.#worker.on('message', (answer: EncodeAnswer) => this.#onAnswer(answer));
    this.#worker.on('error', (error: Error) => {
      if (!this.#closed) onDied();
      this.#closed = true;
      this.#rejectAll(`The tokenizer's Worker failed: ${error.message}`);
    });
    // An idle Worker must not keep the process.
    this.#worker.unref();
  }

  get numPending(): number {
    return this.#pending.size;
  }

  encode(text: string, addSpecialTokens: boolean): Promise<Int32Array> {
    const id = this.#nextId++;
    const result = Promise.withResolvers<Int32Array>();
    this.#pending.set(id, result);
    this.#worker.ref();
    this.#worker.postMessage({ id, text, addSpecialTokens, source: this.source } satisfies EncodeRequest);
    return result.promise;
  }

  close(): void {
    this.#closed = true;
    this.#rejectAll('The tokenizer pool is closed.');
    if (this.#started) this.#worker.terminate();
  }

  #onAnswer(answer: EncodeAnswer): void {
    this.#started = true;
    const result = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if (this.#pending.size === 0) this.#worker.unref();
    if (this.#closed) this.#worker.terminate();
    else if (answer.error === null) result?.resolve(answer.ids);
    else result?.reject(new Error(answer.error));
  }

  #rejectAll(reason: string): void {
    for (const result of this.#pending.values()) result.reject(new Error(reason));
    this.#pending.clear();
  }
}
