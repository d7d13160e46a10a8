import { expect, test } from 'bun:test';
import { type Json, messages, testServer } from './http.ts';
import { schemaErrors } from './openai-schema.ts';

const BATCH = '/v1/chat/completions/batch';
const other = [{ role: 'user', content: 'What is the capital of Italy?' }];
const batch = (fields: Json = {}) => ({ model: 'demo', messages: [messages, other], max_tokens: 3, ...fields });

/** Answers tell which prompt and choice they are of. */
const numbered = () => {
  const seen = new Map<string, number>();
  return testServer({
    script: ({ promptTokenIds }, index) => {
      const key = promptTokenIds.join();
      if (!seen.has(key)) seen.set(key, seen.size);
      return { tokenIds: [300 + seen.get(key)! * 10 + index] };
    },
  });
};

test('each conversation has its choice, in one answer', async () => {
  const server = await numbered();
  const { status, body } = await server.postJson(BATCH, batch({ max_tokens: 1, return_token_ids: true }));
  expect(status).toBe(200);
  expect(body.choices.map((choice: Json) => [choice.index, choice.token_ids[0]])).toEqual([
    [0, 300],
    [1, 310],
  ]);
  const prompts = server.engine.requests.map(({ promptTokenIds }) => [...promptTokenIds]);
  expect(body.choices.map((choice: Json) => choice.prompt_token_ids)).toEqual(prompts);
  expect(body.usage).toEqual({
    prompt_tokens: prompts.flat().length,
    completion_tokens: 2,
    total_tokens: prompts.flat().length + 2,
  });
  expect(schemaErrors('CreateChatCompletionResponse', body)).toBe('');
});

test('n choices a conversation are indexed conversation * n + i', async () => {
  const server = await numbered();
  const { body } = await server.postJson(BATCH, batch({ n: 2, max_tokens: 1, return_token_ids: true }));
  expect(body.choices.map((choice: Json) => [choice.index, choice.token_ids[0]])).toEqual([
    [0, 300],
    [1, 301],
    [2, 310],
    [3, 311],
  ]);
});

test('what is wrong is named, with its place', async () => {
  const server = await testServer();
  for (const [fields, param] of [
    [{ messages }, 'body.messages.0'],
    [{ messages: [] }, 'body.messages'],
    [{ messages: [messages, [{ content: 'x' }]] }, 'body.messages.1.0.role'],
    [{ stream: true }, 'stream'],
    [{ top_logprobs: 2 }, 'top_logprobs'],
    [{ messages: Array(1025).fill(messages) }, 'body.messages'],
  ] as const) {
    const { status, body } = await server.postJson(BATCH, batch(fields));
    expect([status, body.error.param]).toEqual([400, param]);
  }
  expect(server.engine.requests).toEqual([]);
});
