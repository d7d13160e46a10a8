import { afterEach, beforeAll, describe, expect, test } from 'bun:test';
import { type BaoProcess, complete, startBao } from './bao-process.ts';

const PROMPTS = [
  'The capital of France is',
  'Once upon a time there was a little',
  'One, two, three, four, five, one, two, three, four,',
  `${'The quick brown fox jumps over the lazy dog. '.repeat(12)}The quick`,
  'Hello',
];
const REQUEST = { model: 'demo', max_tokens: 48, return_token_ids: true };
/** Everything that a token may depend on, besides the model. */
const VARIANTS: readonly Record<string, unknown>[] = [
  { temperature: 0, ignore_eos: true, logprobs: 3 },
  { temperature: 0, stop: ['the', '.'], include_stop_str_in_output: true },
  { temperature: 0.9, seed: 7, logprobs: 0 },
  { temperature: 1, seed: 8, top_p: 0.8, top_k: 40, min_p: 0.02, n: 3 },
  { temperature: 0.7, seed: 9, presence_penalty: 1.2, frequency_penalty: 0.6, repetition_penalty: 1.2, logprobs: 2 },
  { temperature: 0, min_tokens: 40, logit_bias: { 300: 3, 301: -5 }, bad_words: ['the', 'little girl'] },
  { temperature: 0, allowed_token_ids: Array.from({ length: 900 }, (_, i) => 200 + i), ignore_eos: true },
  { temperature: 0, structured_outputs: { regex: '( [a-z]{2,6}){6}\\.' } },
  { temperature: 0, prompt_logprobs: 1, max_tokens: 1 },
  { temperature: 0.8, seed: 3, ignore_eos: true, max_tokens: 7 },
];
const OWN_DRAFT = '{"model": "demo", "num_speculative_tokens": 3}';
const DRAFT_MODEL = '{"model": "models/demo-draft", "num_speculative_tokens": 4}';
const NGRAM = '{"method": "ngram", "num_speculative_tokens": 5, "prompt_lookup_min": 1, "prompt_lookup_max": 4}';

/** What a client gets, but for ids and times. */
async function answers(server: BaoProcess, copies = 1): Promise<unknown[]> {
  const bodies = VARIANTS.flatMap((variant) => PROMPTS.map((prompt) => ({ ...REQUEST, ...variant, prompt })));
  const all = Array.from({ length: copies }, () => bodies).flat();
  const results = await Promise.all(all.map((body) => complete(server, body)));
  return results.map(({ choices, usage }) => ({ choices, usage }));
}

async function counter(server: BaoProcess, name: string): Promise<number> {
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  return Number(metrics.match(new RegExp(`^vllm:${name}_total\\{.*\\} (\\d+)`, 'm'))?.[1]);
}

describe('answers are those of a server that does not speculate', () => {
  let expected: unknown[];

  beforeAll(async () => {
    const server = await startBao(['demo']);
    expected = await answers(server);
    await server.stop();
  });

  async function expectSame(args: readonly string[], copies = 1): Promise<BaoProcess> {
    const server = await startBao(['demo', ...args]);
    started.push(server);
    const got = await answers(server, copies);
    got.forEach((each, i) => {
      expect(each).toEqual(expected[i % expected.length]!);
    });
    expect(await counter(server, 'spec_decode_num_accepted_tokens')).toBeGreaterThan(100);
    return server;
  }

  const started: BaoProcess[] = [];
  afterEach(async () => {
    for (const server of started.splice(0)) await server.stop();
  });

  test('with a draft model', () => expectSame(['--speculative-config', DRAFT_MODEL]));

  test('with itself as the draft model, whose guesses then hold, with temperatures and penalties too', async () => {
    const server = await expectSame(['--speculative-config', OWN_DRAFT]);
    const drafted = await counter(server, 'spec_decode_num_draft_tokens');
    const accepted = await counter(server, 'spec_decode_num_accepted_tokens');
    expect(accepted / drafted).toBeGreaterThan(0.98);
  });

  test('with n-grams', () => expectSame(['--speculative-config', NGRAM]));

  test('with small steps, adapters, and a KV cache too small for all', async () => {
    const small = ['--max-num-batched-tokens', '120', '--max-num-seqs', '24', '--block-size', '16'];
    const memory = ['--num-gpu-blocks-override', '48', '--max-model-len', '512', '--enable-lora'];
    const server = await expectSame(['--speculative-config', DRAFT_MODEL, ...small, ...memory], 2);
    expect(await counter(server, 'num_preemptions')).toBeGreaterThan(0);
  });

  test.each([
    ['given', ['--max-model-len', '64']],
    ['as the KV cache has room for', ['--max-model-len', 'auto', '--num-gpu-blocks-override', '5']],
  ])('up to the longest length: %s', async (_, length) => {
    const plain = await startBao(['demo', ...length]);
    const drafting = await startBao(['demo', ...length, '--speculative-config', OWN_DRAFT]);
    started.push(plain, drafting);
    for (const prompt of [PROMPTS[0]!, PROMPTS[2]!]) {
      const body = { ...REQUEST, prompt, temperature: 0, ignore_eos: true };
      const { usage } = await complete(plain, { ...body, max_tokens: 1 });
      const longest = { ...body, max_tokens: 64 - usage!.prompt_tokens };
      const [a, b] = [await complete(plain, longest), await complete(drafting, longest)];
      expect(b.choices).toEqual(a.choices);
      expect(b.usage).toMatchObject({ total_tokens: 64 });
    }
  });

  test('by several cores, before and after they slept', async () => {
    const server = await startBao([
      ...['demo', '--speculative-config', DRAFT_MODEL, '--data-parallel-size', '2', '--cpu-threads', '2'],
      ...['--enable-sleep-mode', '--server-dev-mode'],
    ]);
    started.push(server);
    const before = await answers(server);
    for (const path of ['/sleep?level=1', '/wake_up']) {
      expect((await fetch(server.url + path, { method: 'POST' })).status).toBe(200);
    }
    expect([before, await answers(server)]).toEqual([expected, expected]);
  });
});
