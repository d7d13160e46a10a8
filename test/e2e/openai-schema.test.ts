import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { typedEvents } from '../fixtures/typed-events.ts';
import { type CompletionChoice, completionSchemaErrors, schemaErrors } from '../server/openai-schema.ts';
import { type BaoProcess, startBao } from './bao-process.ts';

/** Every 200 answer and every event of a stream of a real server against OpenAI's own description of them. */
let server: BaoProcess;
beforeAll(async () => {
  server = await startBao(['demo', '--enable-prompt-tokens-details']);
});
afterAll(() => server.stop());

const COMMON: Record<string, Record<string, unknown>> = {
  plain: {},
  'several choices': { n: 3, temperature: 1 },
  'cut short': { max_tokens: 2 },
  'a stop string': { stop: [' of'] },
  'a stop token': { stop_token_ids: [304] },
  'token ids': { return_token_ids: true, return_tokens_as_token_ids: true },
  'nothing but the end': { max_tokens: 1, logit_bias: { '2041': 100 } },
};
const CHAT: Record<string, Record<string, unknown>> = {
  ...COMMON,
  logprobs: { logprobs: true },
  'top logprobs': { logprobs: true, top_logprobs: 20, n: 2, temperature: 1 },
  'prompt logprobs': { prompt_logprobs: 0 },
  echo: {
    messages: [{ role: 'assistant', content: 'The capital of' }],
    echo: true,
    add_generation_prompt: false,
    continue_final_message: true,
  },
};
const COMPLETIONS: Record<string, Record<string, unknown>> = {
  ...COMMON,
  logprobs: { logprobs: 5 },
  'echo with logprobs': { echo: true, logprobs: 2 },
  'echo alone': { echo: true, max_tokens: 0 },
  'several prompts': { prompt: ['The capital of France is', 'Hello'], echo: true, logprobs: 0 },
  'half characters': { max_tokens: 3, allowed_token_ids: [172], logprobs: 1 },
};

async function answers(path: string, body: Record<string, unknown>): Promise<Record<string, unknown>[]> {
  const response = await fetch(server.url + path, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ model: 'demo', temperature: 0, max_tokens: 12, ...body }),
  });
  const text = await response.text();
  expect(response.status, text).toBe(200);
  if (body.stream !== true) return [JSON.parse(text)];
  const events = text.split('\n').filter((line) => line.startsWith('data: '));
  expect(events.pop()).toBe('data: [DONE]');
  return events.map((line) => JSON.parse(line.slice(6)));
}

describe.each([
  ['in one piece', {}],
  ['streamed', { stream: true }],
  ['streamed with usage', { stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } }],
])('%s', (_, how) => {
  test.each(Object.entries(CHAT))('chat completion, %s', async (_, fields) => {
    const messages = [{ role: 'user', content: 'What is the capital of France?' }];
    const schema = 'stream' in how ? 'CreateChatCompletionStreamResponse' : 'CreateChatCompletionResponse';
    for (const answer of await answers('/v1/chat/completions', { messages, ...fields, ...how })) {
      expect(schemaErrors(schema, answer), JSON.stringify(answer)).toBe('');
    }
  });

  test.each(Object.entries(COMPLETIONS))('completion, %s', async (_, fields) => {
    for (const answer of await answers('/v1/completions', { prompt: 'The capital of France is', ...fields, ...how })) {
      const errors = completionSchemaErrors(answer as unknown as { choices: CompletionChoice[] });
      expect(errors, JSON.stringify(answer)).toBe('');
    }
  });
});

const RESPONSES: Record<string, Record<string, unknown>> = {
  plain: {},
  'cut short': { max_output_tokens: 2 },
  'a stop string': { stop: [' of'] },
  'top logprobs': { include: ['message.output_text.logprobs'], top_logprobs: 20 },
  'a schema': { text: { format: { type: 'json_schema', name: 'n', schema: { type: 'integer' } } } },
  'all fields': {
    ...{ instructions: 'Be brief.', metadata: { a: 'b' }, user: 'u', truncation: 'auto', service_tier: 'flex' },
    ...{ reasoning: { effort: 'low', summary: 'auto' }, parallel_tool_calls: false, max_tool_calls: 3 },
  },
  'in the background': { background: true },
};

test.each(Object.entries(RESPONSES))('response, %s, whole and as events', async (_, fields) => {
  for (const stream of [false, true]) {
    const response = await fetch(`${server.url}/v1/responses`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ model: 'demo', temperature: 0, max_output_tokens: 12, input: 'Hello', stream, ...fields }),
    });
    const text = await response.text();
    expect(response.status, text).toBe(200);
    const answers = stream ? typedEvents(text) : [JSON.parse(text)];
    for (const answer of answers) {
      expect(schemaErrors(stream ? 'ResponseStreamEvent' : 'Response', answer), JSON.stringify(answer)).toBe('');
    }
  }
});

test('models', async () => {
  const list = await (await fetch(`${server.url}/v1/models`)).json();
  expect(schemaErrors('ListModelsResponse', list)).toBe('');
});
