import { describe, expect, test } from 'bun:test';
import type { Script } from './fake-engine.ts';
import { CHAT, type Json, messages, sseEvents, testServer } from './http.ts';
import { schemaErrors } from './openai-schema.ts';

const capital = [298, 454, 304];
const script = (): Script => ({ tokenIds: capital });
const chat = (fields: Json = {}) => ({ model: 'demo', messages, max_tokens: 3, ...fields });

async function complete(fields: Json, flags = {}, said: () => Script = script) {
  const server = await testServer({ script: said, flags });
  const answer = await server.postJson(CHAT, chat(fields));
  return { ...answer, request: server.engine.requests[0] };
}

async function stream(fields: Json, flags = {}, said: (index: number) => Script = script): Promise<Json[]> {
  const server = await testServer({ script: (_, index) => said(index), flags });
  const response = await server.post(CHAT, chat({ stream: true, ...fields }));
  expect(response.status).toBe(200);
  const events = sseEvents(await response.text());
  expect(events.at(-1)).toBe('[DONE]');
  for (const event of events.slice(0, -1)) expect(schemaErrors('CreateChatCompletionStreamResponse', event)).toBe('');
  return events.slice(0, -1);
}

describe('answer in one piece', () => {
  test('has only what OpenAI describes unless more is asked for', async () => {
    const { body } = await complete({});
    expect(Object.keys(body)).toEqual(['id', 'object', 'created', 'model', 'choices', 'system_fingerprint', 'usage']);
    expect(body.choices).toEqual([
      {
        index: 0,
        message: { role: 'assistant', content: 'The capital of', refusal: null },
        logprobs: null,
        finish_reason: 'length',
      },
    ]);
    expect(body.usage).toEqual({ prompt_tokens: 15, total_tokens: 18, completion_tokens: 3 });
    expect(body.system_fingerprint).toMatch(/^bao-\d+\.\d+\.\d+-[0-9a-f]{8}$/);
  });

  test('n choices come by index', async () => {
    const server = await testServer({ script: (_, index) => ({ tokenIds: [300 + index] }) });
    const { body } = await server.postJson(CHAT, chat({ n: 3, max_tokens: 1 }));
    expect(body.choices.map((choice: Json) => choice.index)).toEqual([0, 1, 2]);
    expect(new Set(body.choices.map((choice: Json) => choice.message.content)).size).toBe(3);
    expect(body.usage.completion_tokens).toBe(3);
    expect(schemaErrors('CreateChatCompletionResponse', body)).toBe('');
  });

  test('stop_reason, token ids and prompt text where they carry a value', async () => {
    const { body } = await complete({ stop_token_ids: [454], return_token_ids: true, return_prompt_text: true });
    expect(body.choices[0]).toMatchObject({ finish_reason: 'stop', stop_reason: 454, token_ids: [298, 454] });
    expect(body.prompt_token_ids).toHaveLength(15);
    expect(body.prompt_text).toStartWith('<|im_start|>user\nWhat is');
  });

  test('continue_final_message and echo', async () => {
    const conversation = [...messages, { role: 'assistant', content: 'It is' }];
    const fields = { messages: conversation, continue_final_message: true, add_generation_prompt: false, echo: true };
    const { body, request } = await complete({ ...fields, return_prompt_text: true });
    expect(body.prompt_text).toEndWith('<|im_start|>assistant\nIt is');
    expect(body.choices[0].message).toMatchObject({ role: 'assistant', content: 'It isThe capital of' });
    expect(request?.params.promptLogprobs).toBe(0);
    const conflict = await complete({ ...fields, add_generation_prompt: true });
    expect(conflict.status).toBe(400);
    expect(conflict.body.error.message).toContain('continue_final_message');
  });

  test('cached tokens are told with the flag', async () => {
    const said = () => ({ tokenIds: capital, numCachedTokens: 8 });
    const { body } = await complete({}, { enablePromptTokensDetails: true }, said);
    expect(body.usage.prompt_tokens_details).toEqual({ cached_tokens: 8 });
    expect((await complete({}, {}, said)).body.usage.prompt_tokens_details).toBeUndefined();
  });

  test('flags of the answer: response role, fingerprint, default template variables', async () => {
    const flags = { responseRole: 'bot', fingerprintMode: 'custom', fingerprintValue: 'mine' } as const;
    const { body } = await complete({}, flags);
    expect(body.choices[0].message.role).toBe('bot');
    expect(body.system_fingerprint).toBe('mine');
    expect((await complete({}, { fingerprintMode: 'none' })).body.system_fingerprint).toBeUndefined();
  });

  test('a token that is part of a character has its own bytes', async () => {
    const server = await testServer();
    const { tokenizer } = server.engine;
    const partial = [...tokenizer!.encode('🦜', { addSpecialTokens: false })];
    expect(partial.length).toBeGreaterThan(1);
    const { body } = await complete({ max_tokens: partial.length, logprobs: true, top_logprobs: 1 }, {}, () => ({
      tokenIds: partial,
    }));
    const entries = body.choices[0].logprobs.content;
    expect(entries[0].token).toContain('\ufffd');
    expect(entries.flatMap((entry: Json) => entry.bytes)).toEqual([...new TextEncoder().encode('🦜')]);
  });

  test('return_tokens_as_token_ids, by field and by flag', async () => {
    const logprobs = { logprobs: true, top_logprobs: 1 };
    const byField = await complete({ ...logprobs, return_tokens_as_token_ids: true });
    const byFlag = await complete(logprobs, { returnTokensAsTokenIds: true });
    for (const { body } of [byField, byFlag]) {
      expect(body.choices[0].logprobs.content.map((entry: Json) => entry.token)).toEqual([
        'token_id:298',
        'token_id:454',
        'token_id:304',
      ]);
    }
  });

  test('minus infinity is a number that JSON has', async () => {
    const { body } = await complete({ max_tokens: 1, logprobs: true }, {}, () => ({
      tokenIds: [298],
      logprobs: [[{ tokenId: 298, logprob: Number.NEGATIVE_INFINITY, rank: 9, decodedToken: 'The' }]],
    }));
    expect(body.choices[0].logprobs.content[0].logprob).toBe(-9999);
  });
});

describe('stream', () => {
  test('role, deltas, finish reason with the fingerprint', async () => {
    const events = await stream({});
    expect(events.map((event) => event.choices[0].delta)).toEqual([
      { role: 'assistant', content: '' },
      { content: 'The' },
      { content: ' capital' },
      { content: ' of' },
    ]);
    expect(events.map((event) => event.choices[0].finish_reason)).toEqual([null, null, null, 'length']);
    expect(events.map((event) => typeof event.system_fingerprint)).toEqual([
      'undefined',
      'undefined',
      'undefined',
      'string',
    ]);
    expect(new Set(events.map((event) => event.id)).size).toBe(1);
  });

  test('usage at the end, in every event, and forced', async () => {
    const atEnd = await stream({ stream_options: { include_usage: true } });
    expect(atEnd.at(-1)).toMatchObject({
      choices: [],
      usage: { prompt_tokens: 15, completion_tokens: 3, total_tokens: 18 },
    });
    expect(atEnd.filter((event) => event.usage !== undefined)).toHaveLength(1);
    const forced = await stream({}, { enableForceIncludeUsage: true });
    expect(forced.map((event) => event.usage.completion_tokens)).toEqual([0, 1, 2, 3, 3]);
  });

  test('n choices interleave, each with its own text', async () => {
    const events = await stream({ n: 2 }, {}, (index) => ({ tokenIds: index === 0 ? capital : [304, 304, 304] }));
    const textOf = (index: number) =>
      events
        .map((event) => event.choices[0])
        .filter((choice) => choice.index === index)
        .map((choice) => choice.delta.content)
        .join('');
    expect([textOf(0), textOf(1)]).toEqual(['The capital of', ' of of of']);
    expect(events.map((event) => event.choices[0].index)).toEqual([0, 1, 0, 1, 0, 1, 0, 1]);
  });

  test('stream_interval collects tokens, the first and the last come at once', async () => {
    const tokenIds = [298, 454, 304, 298, 454, 304, 298];
    const texts = async (fields: Json, flags = {}) =>
      (await stream({ max_tokens: 7, ...fields }, flags, () => ({ tokenIds })))
        .slice(1)
        .map((event) => event.choices[0].delta.content);
    expect(await texts({ stream_interval: 3 })).toEqual(['The', ' capital ofThe', ' capital ofThe']);
    expect(await texts({ stream_interval: 1 }, { streamInterval: 4 })).toEqual([
      'The',
      ' capital ofThe capital',
      ' ofThe',
    ]);
  });

  test('half a character waits for the other half', async () => {
    const server = await testServer();
    const tokenIds = [...server.engine.tokenizer!.encode('é🦜!', { addSpecialTokens: false })];
    const events = await stream({ max_tokens: tokenIds.length }, {}, () => ({ tokenIds }));
    const texts = events.map((event) => event.choices[0].delta.content ?? '');
    expect(texts.join('')).toBe('é🦜!');
    expect(texts.some((text) => text.includes('\ufffd'))).toBe(false);
  });

  test('text is escaped right, whatever it is', async () => {
    const text = '"\\\n\r\t\u2028\u0000</script> data: x\n\n';
    const server = await testServer();
    const tokenIds = [...server.engine.tokenizer!.encode(text, { addSpecialTokens: false })];
    const events = await stream({ max_tokens: tokenIds.length }, {}, () => ({ tokenIds }));
    expect(events.map((event) => event.choices[0].delta.content ?? '').join('')).toBe(text);
  });

  test('token ids and log probabilities of every token, also of text held back', async () => {
    const events = await stream({ return_token_ids: true, logprobs: true, stop: ['zzzzz'] });
    const choices = events.slice(1).map((event) => event.choices[0]);
    expect(events[0].prompt_token_ids).toHaveLength(15);
    expect(choices.flatMap((choice) => choice.token_ids)).toEqual(capital);
    expect(choices.flatMap((choice) => choice.logprobs.content.map((entry: Json) => entry.token))).toEqual([
      'The',
      ' capital',
      ' of',
    ]);
  });
});

describe('prompt', () => {
  test('max_tokens is what fits unless given, max_completion_tokens goes first', async () => {
    const server = await testServer({ script });
    await server.postJson(CHAT, { messages, stop_token_ids: [304] });
    await server.postJson(CHAT, { messages, max_tokens: 5, max_completion_tokens: 2 });
    expect(server.engine.requests.map(({ params }) => params.maxTokens)).toEqual([4096 - 15, 2]);
  });

  test('truncation keeps the end, or the beginning', async () => {
    const server = await testServer({ script });
    const whole = (await server.postJson('/tokenize', { messages })).body.tokens;
    await server.postJson(CHAT, chat({ truncate_prompt_tokens: 4 }));
    await server.postJson(CHAT, chat({ truncate_prompt_tokens: 4, truncation_side: 'right' }));
    await server.postJson(CHAT, chat({ truncate_prompt_tokens: -1 }));
    expect(server.engine.requests.map(({ promptTokenIds }) => [...promptTokenIds])).toEqual([
      whole.slice(-4),
      whole.slice(0, 4),
      whole,
    ]);
    const tooMany = await server.postJson(CHAT, chat({ truncate_prompt_tokens: 4094 }));
    expect(tooMany.body.error).toMatchObject({ code: 400, param: 'truncate_prompt_tokens' });
  });

  test('prompt and output that do not fit together', async () => {
    const { status, body } = await complete({
      messages: [{ role: 'user', content: 'word '.repeat(2000) }],
      max_tokens: 3000,
    });
    expect(status).toBe(400);
    expect(body.error.param).toBe('input_tokens');
    expect(body.error.message).toContain('you requested 3000 output tokens');
  });

  test('what can never fit is refused without tokenizing it', async () => {
    const server = await testServer();
    let encoded = 0;
    const encode = server.engine.encode.bind(server.engine);
    server.engine.encode = (...args) => {
      encoded++;
      return encode(...args);
    };
    const { body } = await server.postJson(CHAT, chat({ messages: [{ role: 'user', content: 'x'.repeat(2 ** 20) }] }));
    expect(body.error).toMatchObject({ code: 400, param: 'input_text' });
    expect(encoded).toBe(0);
  });

  test('a template of the request only where the operator allows it', async () => {
    const fields = { chat_template: '{{ messages[0].content }}!', return_prompt_text: true };
    expect((await complete(fields)).body.error.message).toContain('--trust-request-chat-template');
    const { body } = await complete(fields, { trustRequestChatTemplate: true });
    expect(body.prompt_text).toBe('What is the capital of France?!');
  });

  test('template variables: request over reasoning_effort over flag', async () => {
    const template = '{{ enable_thinking }} {{ color }} {{ reasoning_effort }}';
    const flags = {
      trustRequestChatTemplate: true,
      defaultChatTemplateKwargs: { color: 'red', enable_thinking: true },
    };
    const fields = { chat_template: template, return_prompt_text: true };
    const promptOf = async (more: Json) => (await complete({ ...fields, ...more }, flags)).body.prompt_text;
    expect(await promptOf({ reasoning_effort: 'none' })).toBe('false red none');
    expect(await promptOf({ chat_template_kwargs: { color: 'blue' } })).toStartWith('true blue');
  });

  test('tools reach the template with tool_choice none; messages of tools are rendered', async () => {
    const tools = [{ type: 'function', function: { name: 'add', parameters: { type: 'object' } } }];
    const conversation = [
      ...messages,
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'c', type: 'function', function: { name: 'add', arguments: '{"a": 1}' } }],
      },
      { role: 'tool', tool_call_id: 'c', content: '1' },
    ];
    const { body } = await complete({ tools, tool_choice: 'none', messages: conversation, return_prompt_text: true });
    expect(body.prompt_text).toContain('"name": "add", "description": null');
    expect(body.prompt_text).toContain('<tool_response>\n1');
    expect((await complete({ tools })).body.error.message).toContain('--enable-auto-tool-choice');
  });

  test('where it runs: priority, salt, rank', async () => {
    const server = await testServer({
      script,
      flags: { schedulingPolicy: 'priority', dataParallelSize: 2, cpuThreads: 2 },
    });
    const headers = { 'X-data-parallel-rank': '1' };
    await server.postJson(CHAT, chat({ priority: -3, cache_salt: 'salt' }), headers);
    expect(server.engine.requests[0]).toMatchObject({ priority: -3, cacheSalt: 'salt', dataParallelRank: 1 });
    const wrong = await server.postJson(CHAT, chat(), { 'X-data-parallel-rank': '2' });
    expect(wrong.body.error).toMatchObject({ code: 400, message: 'data_parallel_rank 2 is out of range [0, 2).' });
    expect((await complete({ priority: 1 })).body.error.param).toBe('priority');
    expect((await complete({ cache_salt: '' })).body.error.param).toBe('cache_salt');
  });

  test("the id is the client's, the engine's is unique", async () => {
    const server = await testServer({ script });
    const byHeader = await server.postJson(CHAT, chat(), { 'X-Request-Id': 'abc' });
    const byField = await server.postJson(CHAT, chat({ request_id: 'abc' }));
    expect([byHeader.body.id, byField.body.id]).toEqual(['chatcmpl-abc', 'chatcmpl-abc']);
    expect(new Set(server.engine.requests.map(({ requestId }) => requestId)).size).toBe(2);
  });
});
