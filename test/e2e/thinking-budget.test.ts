import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type BaoProcess, complete, post, startBao } from './bao-process.ts';

/** `<think>` and `</think>` of the demo model, which thinks on until something ends it. */
const [START, END] = [2042, 2043];
const MESSAGES = [{ role: 'user', content: 'Tell me a story about an owl named Carol.' }];

interface Choice {
  token_ids: number[];
  message: { reasoning?: string; content: string | null };
}

describe('thinking_token_budget', () => {
  let server: BaoProcess;
  beforeAll(async () => {
    // Few blocks, so that requests that run together are preempted too.
    server = await startBao([
      ...['demo', '--reasoning-parser', 'qwen3', '--generation-config', 'vllm'],
      ...['--max-model-len', '160', '--num-gpu-blocks-override', '32'],
    ]);
  });
  afterAll(() => server.stop());

  const chat = async (extra: object): Promise<Choice[]> => {
    const { status, body } = await post(`${server.url}/v1/chat/completions`, {
      ...{ messages: MESSAGES, max_tokens: 60, temperature: 0, ignore_eos: true, return_token_ids: true },
      ...extra,
    });
    expect(status, JSON.stringify(body)).toBe(200);
    return (body as { choices: Choice[] }).choices;
  };

  const expectThoughts = ({ token_ids: ids, message }: Choice, budget: number) => {
    expect(ids.indexOf(END)).toBe(budget);
    expect(message.reasoning === undefined).toBe(budget === 0);
    expect(message.content).not.toBe('');
  };

  test('that many tokens are thought, alone and in a batch; without one the model thinks on', async () => {
    const free = (await chat({}))[0]!;
    expect(free.token_ids).not.toContain(END);
    expect((await chat({ thinking_token_budget: -1 }))[0]).toEqual(free);
    const budgets = [0, 1, 2, 5, 30, null, 59, null];
    const alone: Choice[] = [];
    for (const budget of budgets) alone.push((await chat({ thinking_token_budget: budget }))[0]!);
    const together = await Promise.all(budgets.map((budget) => chat({ thinking_token_budget: budget })));
    budgets.forEach((budget, i) => {
      expect(together[i]![0]!.token_ids).toEqual(alone[i]!.token_ids);
      if (budget === null) expect(alone[i]).toEqual(free);
      else if (budget < 59) expectThoughts(alone[i]!, budget);
      expect(alone[i]!.token_ids.filter((id) => id === END)).toHaveLength(budget === null ? 0 : 1);
      // Up to the end of its thinking nothing is changed.
      if (budget !== null) expect(alone[i]!.token_ids.slice(0, budget)).toEqual(free.token_ids.slice(0, budget));
    });
  });

  test('each of n answers has its own; an end that the model finds itself counts', async () => {
    for (const choice of await chat({ n: 3, temperature: 1, seed: 4, thinking_token_budget: 7 })) {
      expectThoughts(choice, 7);
    }
    const choices = await chat({
      ...{ n: 6, temperature: 1, seed: 3 },
      logit_bias: { [END]: 11 },
      thinking_token_budget: 20,
    });
    const lengths = choices.map(({ token_ids: ids }) => ids.indexOf(END));
    for (const length of lengths) expect(length).toBeLessThanOrEqual(20);
    expect(Math.min(...lengths)).toBeLessThan(20);
  });

  test('what other fields forbid does not keep the thinking from its end', async () => {
    const fields = { allowed_token_ids: [70, 80, 90], bad_words: ['</think>'], logit_bias: { [END]: -100 } };
    const [choice] = await chat({ ...fields, logprobs: true, top_logprobs: 2, thinking_token_budget: 4 });
    expect(choice!.token_ids.indexOf(END)).toBe(4);
  });

  test('a grammar begins behind it', async () => {
    const structured_outputs = { choice: ['yes', 'no'] };
    const [choice] = await chat({ structured_outputs, thinking_token_budget: 6, ignore_eos: false });
    expectThoughts(choice!, 6);
    expect(choice!.message.content).toMatch(/^(yes|no)$/);
  });

  test('completions: thinking that the prompt has begun, and that the model begins', async () => {
    const request = { max_tokens: 20, temperature: 0, ignore_eos: true, return_token_ids: true };
    const ids = async (extra: object) => (await complete(server, { ...request, ...extra })).choices[0]!.token_ids!;
    expect((await ids({ prompt: 'So <think>', thinking_token_budget: 3 })).indexOf(END)).toBe(3);
    // Two of them are in the prompt.
    expect((await ids({ prompt: [70, START, 71, 72], thinking_token_budget: 3 })).indexOf(END)).toBe(1);
    expect(await ids({ prompt: [70, START, 71, END], thinking_token_budget: 3 })).not.toContain(END);
    const begun = await ids({ prompt: 'So', allowed_token_ids: [START], thinking_token_budget: 3, min_tokens: 20 });
    expect(begun.slice(0, 5)).toEqual([START, START, START, START, END]);
  });

  test('Responses and Messages', async () => {
    const response = await post(`${server.url}/v1/responses`, {
      ...{ input: 'Tell me a story.', temperature: 0, max_output_tokens: 40, thinking_token_budget: 9 },
    });
    expect(response.body).toMatchObject({
      output: [{ type: 'reasoning' }, { type: 'message' }],
      usage: { output_tokens_details: { reasoning_tokens: 9 } },
    });
    const thinking = { type: 'enabled', budget_tokens: 9 };
    const message = await post(`${server.url}/v1/messages`, {
      ...{ model: 'demo', messages: MESSAGES, max_tokens: 40, temperature: 0, thinking },
    });
    expect(message.body).toMatchObject({ content: [{ type: 'thinking' }, { type: 'text' }] });
  });

  test('numbers that are none are refused', async () => {
    for (const budget of [-2, 1.5, 'many', {}]) {
      const { status, body } = await post(`${server.url}/v1/chat/completions`, {
        ...{ messages: MESSAGES, thinking_token_budget: budget },
      });
      expect(status).toBe(400);
      expect(JSON.stringify(body)).toContain('thinking_token_budget');
    }
  });

  test('repetition_detection ends an answer that goes round in circles', async () => {
    const request = { prompt: 'One, two, one, two, one, two,', max_tokens: 100, temperature: 0, ignore_eos: true };
    const full = await complete(server, { ...request, return_token_ids: true });
    const ids = full.choices[0]!.token_ids!;
    const repeats = (length: number) =>
      [1, 2, 3, 4, 5, 6, 7, 8].some((size) => {
        const tail = ids.slice(length - 3 * size, length).join();
        const pattern = ids.slice(length - size, length);
        return length >= 3 * size && tail === [...pattern, ...pattern, ...pattern].join();
      });
    const length = ids.findIndex((_, i) => repeats(i + 1)) + 1;
    expect(length).toBeGreaterThan(0);
    const repetition_detection = { max_pattern_size: 8, min_count: 3 };
    const answers = await Promise.all(
      [{ repetition_detection }, {}].map((extra) => complete(server, { ...request, ...extra })),
    );
    expect(answers[0]!.choices[0]).toMatchObject({ finish_reason: 'repetition', stop_reason: 'repetition_detected' });
    expect(answers[0]!.usage.completion_tokens).toBe(length);
    expect(full.choices[0]!.text).toStartWith(answers[0]!.choices[0]!.text);
    expect(answers[1]!.usage.completion_tokens).toBe(100);
  });
});
