import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type BaoProcess, type CompletionBody, complete, inOneStep, post, startBao } from './bao-process.ts';

const FIXTURES = 'test/fixtures';
const PLUGINS = ['--plugin', `${FIXTURES}/no-repeat-ngram-plugin.ts`, `${FIXTURES}/fault-plugin.ts`];
/** The demo model repeats itself. */
const REQUEST = {
  prompt: 'One, two, one, two, one, two,',
  max_tokens: 48,
  ignore_eos: true,
  temperature: 0,
  return_token_ids: true,
};
const WITHOUT_REPEATED_PAIRS = { ...REQUEST, vllm_xargs: { no_repeat_ngram_size: 2 } };

function ngrams({ choices }: CompletionBody, size: number): string[] {
  const ids = choices[0]!.token_ids!;
  return ids.slice(size - 1).map((_, i) => ids.slice(i, i + size).join(' '));
}

function expectNoneTwice(ngrams: readonly string[]): void {
  expect(new Set(ngrams).size).toBe(ngrams.length);
}

describe('a logits processor of a plugin', () => {
  let server: BaoProcess;
  beforeAll(async () => {
    // Too few blocks for all that run together: some are preempted, and come back with their output.
    const small = ['--max-model-len', '128', '--num-gpu-blocks-override', '24'];
    server = await startBao(['demo', ...small, '--server-dev-mode', ...PLUGINS]);
  });
  afterAll(() => server.stop());

  test('holds for the requests that ask for it, and for no other in their batch', async () => {
    const alone = await complete(server, REQUEST);
    const pairs = ngrams(alone, 2);
    expect(new Set(pairs).size).toBeLessThan(pairs.length);
    const processedAlone = await complete(server, WITHOUT_REPEATED_PAIRS);
    expectNoneTwice(ngrams(processedAlone, 2));

    const batch = await inOneStep(
      server,
      Array.from({ length: 12 }, (_, i) => () => complete(server, i % 2 === 0 ? REQUEST : WITHOUT_REPEATED_PAIRS)),
    );
    batch.forEach(({ choices }, i) => {
      expect(choices[0]!.token_ids).toEqual((i % 2 === 0 ? alone : processedAlone).choices[0]!.token_ids!);
    });
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(Number(metrics.match(/vllm:num_preemptions_total\{[^}]*\} (\d+)/)![1])).toBeGreaterThan(0);
  });

  test('each sequence of n has a state of its own', async () => {
    const { choices, ...rest } = await complete(server, {
      ...WITHOUT_REPEATED_PAIRS,
      ...{ n: 3, temperature: 1.2, seed: 5, vllm_xargs: { no_repeat_ngram_size: 1 } },
    });
    for (const choice of choices) expectNoneTwice(ngrams({ ...rest, choices: [choice] }, 1));
    expect(new Set(choices.map(({ text }) => text)).size).toBe(3);
  });

  test("log probabilities are the model's own", async () => {
    const logprobs = async (extra: object) => {
      const { choices } = await complete(server, { ...REQUEST, logprobs: 1, ...extra });
      return (choices[0] as unknown as { logprobs: { token_logprobs: number[] } }).logprobs.token_logprobs;
    };
    const before = await logprobs({});
    const after = await logprobs({ vllm_xargs: { no_repeat_ngram_size: 2 } });
    const parting = after.findIndex((value, i) => value !== before[i]);
    // Where the processor first rules the best token out, the model still thought it the best.
    expect(parting).toBeGreaterThan(0);
    expect(after[parting]!).toBeLessThan(before[parting]!);
  });

  test('wrong parameters are refused with its own words, unknown ones by name', async () => {
    for (const [args, message] of [
      [{ no_repeat_ngram_size: 0 }, 'no_repeat_ngram_size must be an integer from 1 to 100, got 0.'],
      [{ no_repeat_ngram_size: '2' }, 'got "2".'],
      [{ no_repeat: 2 }, '`vllm_xargs.no_repeat` is not supported by this server'],
    ] as const) {
      const { status, body } = await post(`${server.url}/v1/completions`, { ...REQUEST, vllm_xargs: args });
      expect(status).toBe(400);
      expect((body as { error: { message: string } }).error.message).toContain(message);
    }
  });

  test('an exception fails its own request; the others and the server go on', async () => {
    const good = await complete(server, REQUEST);
    for (const [fault, logged] of [
      ['apply', 'injected fault in apply'],
      ['add', 'injected fault in addRequest'],
      ['nothing', 'it ruled out every token'],
      ['nan', 'it made the logit of token 7 NaN'],
    ]) {
      const [failed, beside] = await Promise.all([
        post(`${server.url}/v1/completions`, { ...REQUEST, vllm_xargs: { fault } }),
        complete(server, REQUEST),
      ]);
      expect(failed.status).toBe(500);
      expect(JSON.stringify(failed.body)).toContain('The logits processor failing has failed.');
      expect(beside.choices[0]!.text).toBe(good.choices[0]!.text);
      await server.logged(new RegExp(logged!));
    }
    // Too late to be anyone's failure.
    await complete(server, { ...REQUEST, vllm_xargs: { fault: 'remove' } });
    expect((await complete(server, REQUEST)).choices[0]!.text).toBe(good.choices[0]!.text);
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
  });

  test('works through chat completions, Responses and Messages', async () => {
    const messages = [{ role: 'user', content: 'Tell me a story.' }];
    const vllm_xargs = { no_repeat_ngram_size: 0 };
    for (const [path, body] of [
      ['/v1/chat/completions', { messages }],
      ['/v1/messages', { messages, model: 'demo', max_tokens: 5 }],
      ['/v1/responses', { input: 'Hi' }],
    ] as const) {
      const { status } = await post(`${server.url}${path}`, { ...body, vllm_xargs });
      expect(status, path).toBe(400);
    }
    const { status } = await post(`${server.url}/v1/chat/completions`, {
      ...{ messages, max_tokens: 8, vllm_xargs: { no_repeat_ngram_size: 2 } },
    });
    expect(status).toBe(200);
  });
});

test('a logits processor works on a CUDA device too', async () => {
  const emulation = ['demo', '--device', 'cuda-emulation', '--max-model-len', '128', '--max-num-seqs', '4'];
  const server = await startBao([...emulation, ...PLUGINS]);
  const [plain, processed] = await Promise.all(
    [REQUEST, WITHOUT_REPEATED_PAIRS].map((request) => complete(server, { ...request, max_tokens: 10 })),
  );
  const pairs = ngrams(plain!, 2);
  expect(new Set(pairs).size).toBeLessThan(pairs.length);
  expectNoneTwice(ngrams(processed!, 2));
  expect(await server.stop()).toBe(0);
});
