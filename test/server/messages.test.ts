import { describe, expect, test } from 'bun:test';
import type { FlagValues } from '../../src/config/flags/index.ts';
import { typedEvents, withWholeDeltas } from '../fixtures/typed-events.ts';
import { FakeEngine } from './fake-engine.ts';
import { type Json, MESSAGES, testServer } from './http.ts';

const TOOLS = [{ name: 'get_weather', input_schema: { type: 'object', properties: { city: { type: 'string' } } } }];
const HERMES = { enableAutoToolChoice: true, toolCallParser: 'hermes' };
const CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>';
const QUESTION = [{ role: 'user', content: 'What is the weather in Paris?' }];

/** A server whose model says this text, and how to ask it. */
async function saying(text: string, flags: Partial<FlagValues> = {}) {
  const { tokenizer } = await FakeEngine.create();
  const tokenIds = [...tokenizer!.encode(text, { addSpecialTokens: false })];
  const server = await testServer({ flags, script: () => ({ tokenIds, numCachedTokens: 3 }) });
  const body = (fields: Json) => ({ model: 'demo', max_tokens: 200, messages: QUESTION, ...fields });
  return {
    ...server,
    ask: (fields: Json = {}) => server.postJson(MESSAGES, body(fields)),
    stream: async (fields: Json = {}) =>
      withWholeDeltas(typedEvents(await (await server.post(MESSAGES, body({ stream: true, ...fields }))).text())),
    /** The prompt that a request comes to. */
    promptOf: async (fields: Json) => {
      const { status, body: answer } = await server.postJson(MESSAGES, body(fields));
      if (status !== 200) throw new Error(answer.error.message);
      return tokenizer!.decode(server.engine.requests.at(-1)!.promptTokenIds, { skipSpecialTokens: false });
    },
  };
}

describe('answers', () => {
  test('text before a call', async () => {
    const { ask } = await saying(`I look.\n${CALL}`, HERMES);
    const { body } = await ask({ tools: TOOLS });
    expect(body).toMatchObject({ type: 'message', role: 'assistant', stop_reason: 'tool_use', stop_sequence: null });
    expect(body.content).toEqual([
      { type: 'text', text: 'I look.\n' },
      {
        type: 'tool_use',
        id: expect.stringMatching(/^toolu_[0-9a-f]{16}$/),
        name: 'get_weather',
        input: { city: 'Paris' },
      },
    ]);
  });

  test('a stream opens, grows and closes one block after the other', async () => {
    const { stream } = await saying(`<think>\nHm.\n</think>\n\nI look.\n${CALL}\n${CALL}`, {
      ...HERMES,
      reasoningParser: 'qwen3',
    });
    const events = await stream({ tools: TOOLS });
    const kinds = events.map(({ type, delta, content_block, index }: Json) => [
      type.replace('content_block_', ''),
      index ?? null,
      content_block?.type ?? delta?.type ?? null,
    ]);
    expect(kinds).toEqual([
      ['message_start', null, null],
      ['start', 0, 'thinking'],
      ['delta', 0, 'thinking_delta'],
      ['delta', 0, 'signature_delta'],
      ['stop', 0, null],
      ['start', 1, 'text'],
      ['delta', 1, 'text_delta'],
      ['stop', 1, null],
      ['start', 2, 'tool_use'],
      ['delta', 2, 'input_json_delta'],
      ['stop', 2, null],
      ['start', 3, 'tool_use'],
      ['delta', 3, 'input_json_delta'],
      ['stop', 3, null],
      ['message_delta', null, null],
      ['message_stop', null, null],
    ]);
    expect(events[9]!.delta).toEqual({ type: 'input_json_delta', partial_json: '{"city": "Paris"}' });
    expect(events.at(-2)).toMatchObject({ delta: { stop_reason: 'tool_use', stop_sequence: null } });
  });

  test.each([
    ['max_tokens', { max_tokens: 2 }, { stop_reason: 'max_tokens', stop_sequence: null }],
    ['a stop sequence', { stop_sequences: ['sun'] }, { stop_reason: 'stop_sequence', stop_sequence: 'sun' }],
    ['its end', {}, { stop_reason: 'end_turn', stop_sequence: null }],
  ])('stops at %s', async (_, fields, expected) => {
    const { ask, stream } = await saying('It is sunny.');
    expect((await ask(fields)).body).toMatchObject(expected);
    expect((await stream(fields)).at(-2)!.delta).toEqual(expected);
  });

  test('tokens of the cache are apart, where they are told', async () => {
    const { ask, stream } = await saying('Yes.', { enablePromptTokensDetails: true });
    const { usage } = (await ask()).body;
    expect(usage.cache_read_input_tokens).toBe(3);
    expect(usage.input_tokens + 3).toBe((await (await saying('Yes.')).ask()).body.usage.input_tokens);
    expect((await stream()).at(-2)).toMatchObject({ usage });
  });

  test('a forced tool is the reason to stop', async () => {
    const { ask, engine } = await saying(CALL, HERMES);
    const { body } = await ask({ tools: TOOLS, tool_choice: { type: 'tool', name: 'get_weather' } });
    expect(body.stop_reason).toBe('tool_use');
    expect(engine.requests[0]!.params.structuredOutputs).not.toBeNull();
  });

  test('disable_parallel_tool_use: one call', async () => {
    const { ask } = await saying(`${CALL}\n${CALL}`, HERMES);
    const { body } = await ask({ tools: TOOLS, tool_choice: { type: 'auto', disable_parallel_tool_use: true } });
    expect(body.content).toHaveLength(1);
  });

  test('a failure on the way is an event', async () => {
    const { post, engine } = await testServer({ manual: true, script: () => ({ tokenIds: Array(9).fill(298) }) });
    const response = await post(MESSAGES, { model: 'demo', max_tokens: 9, messages: QUESTION, stream: true });
    engine.step();
    engine.fail(new Error('boom'));
    const events = typedEvents(await response.text());
    expect(events.at(-1)).toMatchObject({ type: 'error', error: { type: 'InternalServerError' } });
    expect(JSON.stringify(events)).not.toContain('boom');
  });
});

describe('requests', () => {
  test('system, blocks, calls and results become the conversation of the template', async () => {
    const { promptOf } = await saying('Yes.', HERMES);
    const prompt = await promptOf({
      system: [
        { type: 'text', text: 'Be brief.' },
        { type: 'text', text: 'Be kind.', cache_control: { type: 'ephemeral' } },
      ],
      messages: [
        { role: 'user', content: [{ type: 'text', text: 'Weather?' }] },
        {
          role: 'assistant',
          content: [
            { type: 'thinking', thinking: 'Hm.', signature: 's' },
            { type: 'text', text: 'I look.' },
            { type: 'tool_use', id: 'toolu_1', name: 'get_weather', input: { city: 'Paris' } },
          ],
        },
        {
          role: 'user',
          content: [
            { type: 'tool_result', tool_use_id: 'toolu_1', content: [{ type: 'text', text: 'sunny' }] },
            { type: 'text', text: 'And now?' },
          ],
        },
      ],
    });
    expect(prompt).toContain('<|im_start|>system\nBe brief.\nBe kind.<|im_end|>');
    expect(prompt).toContain('I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}');
    expect(prompt).toContain(
      '<tool_response>\nsunny\n</tool_response><|im_end|>\n<|im_start|>user\nAnd now?<|im_end|>',
    );
  });

  test('an answer that the client has begun is gone on with', async () => {
    const { promptOf } = await saying('Yes.');
    const prompt = await promptOf({ messages: [...QUESTION, { role: 'assistant', content: 'It is' }] });
    expect(prompt).toEndWith('<|im_start|>assistant\nIt is');
  });

  test('sampling fields reach the engine', async () => {
    const { ask, engine } = await saying('Yes.');
    await ask({ temperature: 0.5, top_p: 0.9, top_k: 7, stop_sequences: ['a', 'b'], max_tokens: 11 });
    const expected = { temperature: 0.5, topP: 0.9, topK: 7, stop: ['a', 'b'], maxTokens: 11 };
    expect(engine.requests[0]!.params).toMatchObject(expected);
  });

  test('so do priority and salt', async () => {
    const { post, engine } = await saying('Yes.', { schedulingPolicy: 'priority' });
    const body = { model: 'demo', max_tokens: 1, messages: QUESTION, cache_salt: 's' };
    await post(MESSAGES, body, { headers: { 'X-Vllm-Priority': '3' } });
    expect(engine.requests[0]).toMatchObject({ priority: 3, cacheSalt: 's' });
  });

  test('output_config.format is a schema to keep to', async () => {
    const { ask, engine } = await saying('"x"');
    await ask({ output_config: { format: { type: 'json_schema', schema: { type: 'string' } } } });
    expect(engine.requests[0]!.params.structuredOutputs).not.toBeNull();
  });

  test.each([
    ['an image', { messages: [{ role: 'user', content: [{ type: 'image', source: {} }] }] }, 'messages[0].content[0]'],
    ['a server tool', { tools: [{ type: 'web_search_20250305', name: 'web_search' }] }, 'tools[0].type'],
    ['thinking of another kind', { thinking: { type: 'deep' } }, 'thinking'],
    ['a budget of no tokens', { thinking: { type: 'enabled', budget_tokens: 0 } }, 'thinking.budget_tokens'],
    ['a choice without its tool', { tools: TOOLS, tool_choice: { type: 'tool' } }, 'tool_choice.name'],
    ['a call without input', { messages: [{ role: 'assistant', content: [{ type: 'tool_use' }] }] }, 'input'],
    ['no tokens', { max_tokens: 0 }, 'max_tokens'],
    ['watermarking', { watermarking: true }, 'watermarking'],
  ])('%s is refused by name', async (_, fields, name) => {
    const { ask } = await saying('Yes.', HERMES);
    const { status, body } = await ask(fields);
    expect(status).toBe(400);
    expect(body).toEqual({
      type: 'error',
      error: { type: expect.any(String), message: expect.stringContaining(name) },
    });
  });

  test('an unknown model', async () => {
    const { status, body } = await (await saying('')).ask({ model: 'nope' });
    expect(status).toBe(404);
    expect(body).toMatchObject({ type: 'error', error: { type: 'NotFoundError' } });
  });

  test('count_tokens counts what the model would read, tools too', async () => {
    const { ask, postJson } = await saying('Yes.', HERMES);
    for (const fields of [{}, { tools: TOOLS }, { system: 'Be brief.' }]) {
      const { body } = await postJson(`${MESSAGES}/count_tokens`, { model: 'demo', messages: QUESTION, ...fields });
      expect(body.input_tokens).toBe((await ask(fields)).body.usage.input_tokens);
    }
  });

  test('x-api-key opens these routes, and only these', async () => {
    const { postJson, get } = await testServer({ flags: { apiKey: ['secret'] } });
    const body = { model: 'demo', messages: QUESTION };
    const ask = (key: string) => postJson(`${MESSAGES}/count_tokens`, body, { 'x-api-key': key });
    expect((await ask('secret')).status).toBe(200);
    expect(await ask('secre')).toMatchObject({ status: 401, body: { type: 'error', error: { type: 'Unauthorized' } } });
    expect((await get('/v1/models', { 'x-api-key': 'secret' })).status).toBe(401);
  });
});
