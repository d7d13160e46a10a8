import { afterAll, beforeAll, expect, test } from 'bun:test';
import { LLM } from '../../src/index.ts';

const RealWorker = globalThis.Worker;
/** Workers that load libraries now, and at most did at once. */
let loading = 0;
let most = 0;
let numLoaded = 0;

class WatchedWorker extends RealWorker {
  constructor(url: string | URL, options?: WorkerOptions) {
    super(url, options);
    this.addEventListener('message', ({ data }: MessageEvent<{ type?: string }>) => {
      if (data.type !== 'LIBRARIES') return;
      loading--;
      numLoaded++;
    });
  }

  override postMessage(message: { type?: string }, options?: Transferable[] | StructuredSerializeOptions): void {
    if (message.type === 'INIT') most = Math.max(most, ++loading);
    super.postMessage(message, options as Transferable[]);
  }
}

beforeAll(() => {
  globalThis.Worker = WatchedWorker as unknown as typeof Worker;
});
afterAll(() => {
  globalThis.Worker = RealWorker;
});

test('engines that start at the same time load their libraries one after another, and close together', async () => {
  const options = { model: 'demo', logLevel: 'error' } as const;
  const llms = await Promise.all([1, 2, 3].map(() => LLM.create(options)));
  expect([most, loading, numLoaded]).toEqual([1, 0, 3]);
  const answers = await Promise.all(
    llms.map((llm) => llm.generate('The capital of France is', { temperature: 0, maxTokens: 4 })),
  );
  expect(new Set(answers.map(([answer]) => answer!.outputs[0]!.text)).size).toBe(1);
  await Promise.all(llms.map((llm) => llm.close()));
});
