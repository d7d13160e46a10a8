import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type BaoProcess, complete, inOneStep, startBao } from './bao-process.ts';

/** Greedy output and its log probabilities, bit for bit, whatever else the engine does. */
const PROMPTS = [
  'The capital of France is',
  'Once upon a time there was a little',
  'One, two, three,',
  `${'The quick brown fox jumps over the lazy dog. '.repeat(12)}And then`,
  'Monday, Tuesday,',
  `${'A long sentence about nothing at all, '.repeat(9)}the end`,
  'Hello',
  'What is 2 + 2?',
];
const REQUEST = {
  model: 'demo',
  max_tokens: 40,
  temperature: 0,
  ignore_eos: true,
  logprobs: 2,
  return_token_ids: true,
};

const PAUSABLE = ['--server-dev-mode'];

type Answer = { text: string; token_ids?: number[]; logprobs?: { token_logprobs: number[] } };

async function answer(server: BaoProcess, prompt: string, extra: Record<string, unknown> = {}): Promise<Answer> {
  const { choices } = await complete(server, { ...REQUEST, ...extra, prompt });
  const { text, token_ids, logprobs } = choices[0] as Answer;
  return { text, token_ids, logprobs };
}

describe('greedy output does not depend on', () => {
  let alone: Answer[];
  let server: BaoProcess;

  beforeAll(async () => {
    server = await startBao(['demo', '--no-enable-prefix-caching', '--no-async-scheduling', ...PAUSABLE]);
    alone = [];
    for (const prompt of PROMPTS) alone.push(await answer(server, prompt));
    expect(alone.every(({ token_ids }) => token_ids?.length === 40)).toBe(true);
    expect(new Set(alone.map(({ text }) => text)).size).toBeGreaterThan(PROMPTS.length / 2);
  });
  afterAll(() => server.stop());

  async function expectSame(other: BaoProcess, copies = 1): Promise<void> {
    const prompts = Array.from({ length: copies }, () => PROMPTS).flat();
    const answers = await inOneStep(
      other,
      prompts.map((prompt) => () => answer(other, prompt)),
    );
    for (const [i, each] of answers.entries()) expect(each).toEqual(alone[i % PROMPTS.length]!);
  }

  test('the batch: 16 at once', () => expectSame(server, 2));

  test('chunked prefill, async scheduling and the prefix cache', async () => {
    const other = await startBao(['demo', '--max-num-batched-tokens', '64', '--max-num-seqs', '16', ...PAUSABLE]);
    try {
      await expectSame(other, 2);
      const again = await complete(other, { ...REQUEST, prompt: PROMPTS[3] });
      expect(again.choices[0]!.text).toBe(alone[3]!.text);
      await expectSame(other);
      const metrics = await (await fetch(`${other.url}/metrics`)).text();
      expect(Number(metrics.match(/^vllm:prefix_cache_hits_total\{.*\} (\d+)/m)?.[1])).toBeGreaterThan(100);
    } finally {
      await other.stop();
    }
  });

  test('preemption: a KV cache too small for all', async () => {
    const small = ['--num-gpu-blocks-override', '40', '--max-model-len', '512', '--block-size', '16'];
    const other = await startBao(['demo', ...small, ...PAUSABLE]);
    try {
      await expectSame(other, 2);
      const metrics = await (await fetch(`${other.url}/metrics`)).text();
      expect(Number(metrics.match(/^vllm:num_preemptions_total\{.*\} (\d+)/m)?.[1])).toBeGreaterThan(0);
    } finally {
      await other.stop();
    }
  });

  test('the number of threads', async () => {
    const other = await startBao(['demo', '--cpu-threads', '1', ...PAUSABLE]);
    try {
      await expectSame(other);
    } finally {
      await other.stop();
    }
  });
});
