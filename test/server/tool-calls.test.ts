import { describe, expect, test } from 'bun:test';
import type { FlagValues } from '../../src/config/flags/index.ts';
import type { ToolParserObservation } from '../../src/metrics/parser-metrics.ts';
import { FakeEngine } from './fake-engine.ts';
import { CHAT, type Json, messages, sseEvents, testServer } from './http.ts';
import { schemaErrors } from './openai-schema.ts';

const TOOLS = [
  {
    type: 'function',
    function: { name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
  },
];
const HERMES = { enableAutoToolChoice: true, toolCallParser: 'hermes' };
const QWEN3 = { ...HERMES, reasoningParser: 'qwen3' };
const CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>';

/** A server whose model says this text, token by token. */
async function saying(text: string, flags: Partial<FlagValues>) {
  const { tokenizer } = await FakeEngine.create();
  const tokenIds = [...tokenizer!.encode(text, { addSpecialTokens: false })];
  const observed: ToolParserObservation[] = [];
  const server = await testServer(
    { flags, script: () => ({ tokenIds }) },
    {
      metrics: {
        contentType: 'text/plain',
        render: async () => '',
        observeToolParser: (observation) => observed.push(observation),
      },
    },
  );
  const body = (fields: Json) => ({ messages, tools: TOOLS, max_tokens: 200, ...fields });
  return {
    engine: server.engine,
    observed,
    complete: async (fields: Json = {}) => (await server.postJson(CHAT, body(fields))).body,
    stream: async (fields: Json = {}) =>
      sseEvents(await (await server.post(CHAT, body({ stream: true, ...fields }))).text()),
  };
}

/** What the deltas add up to, as clients do it. */
function assembled(events: Json[]): Json {
  const message: Json = { content: '', reasoning: '', calls: [], finish: null };
  for (const event of events) {
    const choice = event.choices?.[0];
    message.content += choice?.delta.content ?? '';
    message.reasoning += choice?.delta.reasoning ?? '';
    message.finish ??= choice?.finish_reason ?? null;
    for (const call of choice?.delta.tool_calls ?? []) {
      message.calls[call.index] ??= { id: call.id, name: call.function.name, arguments: '' };
      message.calls[call.index].arguments += call.function.arguments ?? '';
    }
  }
  return message;
}

describe('tool calls', () => {
  test('an answer with a call has no content and its own finish_reason', async () => {
    const { complete, observed } = await saying(CALL, HERMES);
    const answer = await complete();
    const { message, finish_reason } = answer.choices[0];
    expect(message.content).toBeNull();
    expect(message.tool_calls).toEqual([
      {
        id: expect.stringMatching(/^chatcmpl-tool-[0-9a-f]{16}$/),
        type: 'function',
        function: { name: 'get_weather', arguments: '{"city": "Paris"}' },
      },
    ]);
    expect(finish_reason).toBe('tool_calls');
    expect(schemaErrors('CreateChatCompletionResponse', answer)).toBe('');
    expect(observed).toEqual([{ requestType: 'chat_completions', isStreaming: false, hasToolCall: true }]);
  });

  test('a stream has the same', async () => {
    const { stream, observed } = await saying(`I look.\n${CALL}\n${CALL}`, HERMES);
    const events = await stream();
    const { content, calls, finish } = assembled(events);
    expect(content).toBe('I look.\n');
    expect(calls.map((call: Json) => [call.name, call.arguments])).toEqual(
      Array(2).fill(['get_weather', '{"city": "Paris"}']),
    );
    expect(calls[0].id).not.toBe(calls[1].id);
    expect(finish).toBe('tool_calls');
    for (const event of events.slice(0, -1)) expect(schemaErrors('CreateChatCompletionStreamResponse', event)).toBe('');
    expect(observed).toContainEqual({ requestType: 'chat_completions', isStreaming: true, hasToolCall: false });
    expect(observed).toContainEqual({ requestType: 'chat_completions', isStreaming: true, hasToolCall: true });
  });

  test('no call: content, and nothing of tools', async () => {
    const { complete, observed } = await saying('It is sunny.', HERMES);
    const { message, finish_reason } = (await complete()).choices[0];
    expect(message).toEqual({ role: 'assistant', content: 'It is sunny.', refusal: null });
    expect(finish_reason).toBe('stop');
    expect(observed.map(({ hasToolCall }) => hasToolCall)).toEqual([false]);
  });

  test('a call that is cut short: content of an answer, and a stream says why it ended', async () => {
    const { complete, stream } = await saying(CALL, HERMES);
    const { message, finish_reason } = (await complete({ max_tokens: 14 })).choices[0];
    expect(message.content).toStartWith('<tool_call>\n{"name": "get_weather"');
    expect(finish_reason).toBe('length');
    expect(assembled(await stream({ max_tokens: 14 })).finish).toBe('length');
  });

  test('tool_choice none: the text as it is; the template sees the tools unless a flag says otherwise', async () => {
    const fields = { tool_choice: 'none', return_prompt_text: true };
    const shown = await (await saying(CALL, HERMES)).complete(fields);
    expect(shown.choices[0].message.content).toBe(CALL);
    expect(shown.prompt_text).toContain('get_weather');
    const hidden = await (await saying(CALL, { ...HERMES, excludeToolsWhenToolChoiceNone: true })).complete(fields);
    expect(hidden.prompt_text).not.toContain('get_weather');
  });

  test('parallel_tool_calls false: the first call only', async () => {
    const { complete, stream } = await saying(`${CALL}\n${CALL}`, HERMES);
    const fields = { parallel_tool_calls: false };
    expect((await complete(fields)).choices[0].message.tool_calls).toHaveLength(1);
    expect(assembled(await stream(fields)).calls).toHaveLength(1);
  });

  test('token ids and log probabilities of a stream are complete', async () => {
    const { stream, engine } = await saying(`Hi.${CALL}`, HERMES);
    const events = await stream({ return_token_ids: true, logprobs: true });
    const choices = events.flatMap((event) => event.choices ?? []);
    const ids = choices.flatMap((choice) => choice.token_ids ?? []);
    expect(engine.tokenizer!.decode(ids, { skipSpecialTokens: true })).toBe(`Hi.${CALL}`);
    expect(choices.flatMap((choice) => choice.logprobs?.content ?? [])).toHaveLength(ids.length);
  });

  test('marks that are special tokens stay in the text only where they are looked for', async () => {
    const { complete, engine } = await saying('x', HERMES);
    await complete();
    await complete({ tool_choice: 'none' });
    expect(engine.requests.map(({ params }) => params.skipSpecialTokens)).toEqual([false, true]);
  });

  test('every choice has calls of its own', async () => {
    const { complete } = await saying(CALL, HERMES);
    const { choices } = await complete({ n: 2, temperature: 1 });
    expect(choices.map((choice: Json) => choice.message.tool_calls.length)).toEqual([1, 1]);
    expect(choices[0].message.tool_calls[0].id).not.toBe(choices[1].message.tool_calls[0].id);
  });
});

describe('reasoning', () => {
  const THOUGHT = '<think>\nhm\n</think>\n\nYes.';

  test('apart from the content, under both names, and counted', async () => {
    const { complete } = await saying(THOUGHT, QWEN3);
    const answer = await complete();
    expect(answer.choices[0].message).toEqual({
      role: 'assistant',
      content: '\n\nYes.',
      refusal: null,
      reasoning: '\nhm\n',
      reasoning_content: '\nhm\n',
    });
    expect(answer.usage.completion_tokens_details.reasoning_tokens).toBeGreaterThan(1);
    expect(answer.usage.completion_tokens_details.reasoning_tokens).toBeLessThan(answer.usage.completion_tokens - 4);
  });

  test('a stream has the same', async () => {
    const { complete, stream } = await saying(THOUGHT + CALL, QWEN3);
    const events = await stream({ stream_options: { include_usage: true } });
    expect(assembled(events)).toMatchObject({ reasoning: '\nhm\n', content: '\n\nYes.', finish: 'tool_calls' });
    expect(events.at(-2).usage).toEqual((await complete()).usage);
  });

  test('include_reasoning false leaves it out', async () => {
    const { complete, stream } = await saying(THOUGHT, QWEN3);
    const fields = { include_reasoning: false };
    expect((await complete(fields)).choices[0].message).not.toHaveProperty('reasoning');
    expect(assembled(await stream(fields))).toMatchObject({ reasoning: '', content: '\n\nYes.' });
  });

  test('reasoning_effort none and enable_thinking false switch it off', async () => {
    const { complete } = await saying('Yes.', QWEN3);
    const contentOf = async (fields: Json) => (await complete(fields)).choices[0].message.content;
    expect(await contentOf({})).toBeNull();
    expect(await contentOf({ reasoning_effort: 'none' })).toBe('Yes.');
    expect(await contentOf({ chat_template_kwargs: { enable_thinking: false } })).toBe('Yes.');
  });
});
