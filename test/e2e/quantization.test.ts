import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type BaoProcess, complete, post, startBao } from './bao-process.ts';

const QUESTION = [{ role: 'user', content: 'What is the capital of France?' }];
const PROMPTS = [
  'The capital of France is',
  'Once upon a time there was a little',
  'What is 2 + 2?',
  `${'The quick brown fox jumps over the lazy dog. '.repeat(12)}And then`,
];
const REQUEST = {
  model: 'demo',
  max_tokens: 24,
  temperature: 0,
  ignore_eos: true,
  logprobs: 1,
  return_token_ids: true,
};

/** Tokens and their log probabilities, bit for bit. */
async function answer(server: BaoProcess, prompt: string): Promise<unknown> {
  const { choices } = await complete(server, { ...REQUEST, prompt });
  const { token_ids, logprobs } = choices[0] as (typeof choices)[0] & { logprobs?: unknown };
  return { token_ids, logprobs };
}

const MODES: [name: string, args: string[]][] = [
  ['int8 weights', ['--quantization', 'int8']],
  ['int4 weights', ['-q', 'int4']],
  ['fp8 weights', ['--quantization', 'fp8']],
  ['fp8 keys and values', ['--kv-cache-dtype', 'fp8']],
];

describe.each(MODES)('%s', (_, args) => {
  let server: BaoProcess;
  let alone: unknown[];
  beforeAll(async () => {
    server = await startBao(['demo', ...args, '--max-num-batched-tokens', '64', '--max-num-seqs', '16']);
    const plain = await startBao(['demo', ...args, '--no-enable-prefix-caching']);
    try {
      alone = [];
      for (const prompt of PROMPTS) alone.push(await answer(plain, prompt));
    } finally {
      await plain.stop();
    }
  });
  afterAll(() => server.stop());

  test('know the capital of France', async () => {
    const { status, body } = await post(`${server.url}/v1/chat/completions`, {
      model: 'demo',
      messages: QUESTION,
      temperature: 0,
    });
    expect(status).toBe(200);
    expect(body).toMatchObject({ choices: [{ message: { content: 'The capital of France is Paris.' } }] });
  });

  test('give the same bits alone, in chunks, 16 at once and from the prefix cache', async () => {
    const prompts = Array.from({ length: 4 }, () => PROMPTS).flat();
    for (const round of ['computed', 'cached']) {
      const answers = await Promise.all(prompts.map((prompt) => answer(server, prompt)));
      answers.forEach((each, i) => {
        expect({ round, each }).toEqual({ round, each: alone[i % PROMPTS.length] });
      });
    }
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(Number(metrics.match(/^vllm:prefix_cache_hits_total\{.*\} (\d+)/m)?.[1])).toBeGreaterThan(100);
  });
});
