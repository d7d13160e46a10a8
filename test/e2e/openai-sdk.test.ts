import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import OpenAI from 'openai';
import { type BaoProcess, startBao } from './bao-process.ts';

/** The official SDK against a real server. */
let server: BaoProcess;
let client: OpenAI;

beforeAll(async () => {
  server = await startBao(['demo', '--api-key', 'sk-test', '--enable-prompt-tokens-details']);
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'sk-test', maxRetries: 0 });
});
afterAll(() => server.stop());

const QUESTION = [{ role: 'user' as const, content: 'What is the capital of France?' }];

async function metric(name: string): Promise<number> {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  return Number(text.match(new RegExp(`^${name}\\{.*\\} (\\S+)`, 'm'))?.[1] ?? Number.NaN);
}

/** Polls until the metric has the value; the test's deadline ends it otherwise. */
async function untilMetric(name: string, value: number): Promise<void> {
  while ((await metric(name)) !== value) await Bun.sleep(20);
}

/** What the call was refused with; the SDK's promises only start when they are awaited. */
function failure(call: PromiseLike<unknown>): Promise<unknown> {
  return Promise.resolve(call).then(
    () => null,
    (error: unknown) => error,
  );
}

describe('OpenAI SDK', () => {
  test('lists the model', async () => {
    const models = await client.models.list();
    expect(models.data.map((model) => model.id)).toEqual(['demo']);
    expect((await client.models.retrieve('demo')).id).toBe('demo');
  });

  test('chat', async () => {
    const answer = await client.chat.completions.create({ model: 'demo', messages: QUESTION, temperature: 0 });
    expect(answer.choices[0]!.message.content).toBe('The capital of France is Paris.');
    expect(answer.choices[0]!.finish_reason).toBe('stop');
    expect(answer.usage).toMatchObject({ prompt_tokens: 15, completion_tokens: 8, total_tokens: 23 });
  });

  test('chat stream, with usage', async () => {
    const stream = await client.chat.completions.create({
      model: 'demo',
      messages: QUESTION,
      temperature: 0,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage ?? usage;
    }
    expect(text).toBe('The capital of France is Paris.');
    expect(usage?.completion_tokens).toBe(8);
  });

  test('the stream helper puts the pieces together', async () => {
    const runner = client.chat.completions.stream({ model: 'demo', messages: QUESTION, temperature: 0 });
    expect((await runner.finalMessage()).content).toBe('The capital of France is Paris.');
  });

  test('completions: several prompts, n, logprobs', async () => {
    const answer = await client.completions.create({
      model: 'demo',
      prompt: ['The capital of France is', 'The capital of Italy is'],
      max_tokens: 3,
      n: 2,
      temperature: 0.8,
      seed: 7,
      logprobs: 2,
    });
    expect(answer.choices.map((choice) => choice.index)).toEqual([0, 1, 2, 3]);
    expect(answer.choices[0]!.logprobs?.tokens).toHaveLength(answer.choices[0]!.logprobs!.token_logprobs!.length);
    expect(answer.usage!.prompt_tokens).toBe(10);
  });

  test('a repeated prompt is found in the prefix cache', async () => {
    const request = {
      model: 'demo',
      messages: [
        {
          role: 'user' as const,
          content: 'Tell me a story about a very old and very slow turtle named Tom who likes to swim.',
        },
      ],
      max_tokens: 4,
    };
    await client.chat.completions.create(request);
    const again = await client.chat.completions.create(request);
    expect(again.usage!.prompt_tokens_details!.cached_tokens).toBeGreaterThanOrEqual(16);
  });

  test("errors are the SDK's classes", async () => {
    const request = { model: 'demo', messages: QUESTION };
    const bad = client.chat.completions.create({ ...request, temperature: -1 });
    expect(await failure(bad)).toBeInstanceOf(OpenAI.BadRequestError);
    const unknown = client.chat.completions.create({ ...request, model: 'nope' });
    expect(await failure(unknown)).toBeInstanceOf(OpenAI.NotFoundError);
    const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'sk-wrong', maxRetries: 0 });
    expect(await failure(stranger.models.list())).toBeInstanceOf(OpenAI.AuthenticationError);
  });

  test('an aborted stream frees its request', async () => {
    const stream = await client.chat.completions.create({
      model: 'demo',
      messages: QUESTION,
      stream: true,
      max_tokens: 4000,
      ...{ ignore_eos: true },
    });
    let count = 0;
    for await (const _ of stream) if (++count === 5) break;
    await untilMetric('vllm:num_requests_running', 0);
    expect(await metric('vllm:kv_cache_usage_perc')).toBe(0);
  });

  test('an aborted request that was not streaming frees its request too', async () => {
    const controller = new AbortController();
    const answer = failure(
      client.chat.completions.create(
        { model: 'demo', messages: QUESTION, max_tokens: 4000, ...{ ignore_eos: true } },
        { signal: controller.signal },
      ),
    );
    await untilMetric('vllm:num_requests_running', 1);
    controller.abort();
    expect(await answer).toBeInstanceOf(OpenAI.APIUserAbortError);
    await untilMetric('vllm:num_requests_running', 0);
  });

  test('64 concurrent streams with different parameters: each as it is alone', async () => {
    const requests = Array.from({ length: 64 }, (_, i) => ({
      model: 'demo',
      messages: [
        { role: 'user' as const, content: ['Tell me a story.', 'List the days in order.', 'What is 12 + 30?'][i % 3]! },
      ],
      stream: true as const,
      max_tokens: 10 + (i % 30),
      temperature: i % 4 === 0 ? 0 : 0.3 + (i % 7) / 5,
      top_p: i % 5 === 0 ? 1 : 0.9,
      seed: 1000 + i,
      presence_penalty: i % 6 === 0 ? 0.5 : 0,
      frequency_penalty: i % 8 === 0 ? 0.3 : 0,
      stop: i % 9 === 0 ? ['e'] : undefined,
      logit_bias: i % 10 === 0 ? { '300': 5 } : undefined,
      ...{ top_k: i % 2 === 0 ? 20 : 0, min_p: i % 11 === 0 ? 0.05 : 0, repetition_penalty: i % 12 === 0 ? 1.2 : 1 },
    }));
    const run = async (request: (typeof requests)[number]) => {
      let text = '';
      let finish: string | null = null;
      for await (const chunk of await client.chat.completions.create(request)) {
        text += chunk.choices[0]?.delta.content ?? '';
        finish = chunk.choices[0]?.finish_reason ?? finish;
      }
      return { text, finish };
    };
    const together = await Promise.all(requests.map(run));
    for (const [i, request] of requests.entries()) expect(await run(request)).toEqual(together[i]!);
    expect(new Set(together.map((each) => each.text)).size).toBeGreaterThan(10);
  });
});
