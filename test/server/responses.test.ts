import { describe, expect, test } from 'bun:test';
import type { FlagValues } from '../../src/config/flags/index.ts';
import type { ToolParserObservation } from '../../src/metrics/parser-metrics.ts';
import { type TypedEvent, typedEvents, withWholeDeltas } from '../fixtures/typed-events.ts';
import { FakeEngine } from './fake-engine.ts';
import { type Json, RESPONSES, testServer } from './http.ts';
import { schemaErrors } from './openai-schema.ts';

const TOOLS = [
  { type: 'function', name: 'get_weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
];
const HERMES = { enableAutoToolChoice: true, toolCallParser: 'hermes' };
const QWEN3 = { ...HERMES, reasoningParser: 'qwen3' };
const CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>';

/** A server whose model says these texts, one after the other and the last from then on. */
async function saying(texts: string | string[], flags: Partial<FlagValues> = {}) {
  const { tokenizer } = await FakeEngine.create();
  const lines = [texts].flat();
  const observed: ToolParserObservation[] = [];
  const script = () => {
    const text = lines.length > 1 ? lines.shift()! : lines[0]!;
    return { tokenIds: [...tokenizer!.encode(text, { addSpecialTokens: false })] };
  };
  const observeToolParser = (observation: ToolParserObservation) => observed.push(observation);
  const server = await testServer(
    { flags, script },
    { metrics: { contentType: 'text/plain', render: async () => '', observeToolParser } },
  );
  const bodyOf = (fields: Json) => ({ model: 'demo', input: 'Weather in Paris?', max_output_tokens: 200, ...fields });
  const ask = (fields: Json = {}) => server.postJson(RESPONSES, bodyOf(fields));
  return {
    ...server,
    observed,
    ask,
    /** An answer that must be good. */
    respond: async (fields: Json = {}): Promise<Json> => {
      const { status, body } = await ask(fields);
      if (status !== 200) throw new Error(JSON.stringify(body));
      expect(schemaErrors('Response', body)).toBe('');
      return body;
    },
    stream: async (fields: Json = {}): Promise<TypedEvent[]> => {
      const events = typedEvents(await (await server.post(RESPONSES, bodyOf({ stream: true, ...fields }))).text());
      for (const event of events) expect(schemaErrors('ResponseStreamEvent', event)).toBe('');
      return events;
    },
    prompt: () => tokenizer!.decode(server.engine.requests.at(-1)!.promptTokenIds, { skipSpecialTokens: false }),
  };
}

const typesOf = (events: TypedEvent[]) => withWholeDeltas(events).map(({ type }) => type.replace('response.', ''));

describe('answers', () => {
  test('text and a call', async () => {
    const { respond, observed } = await saying(`I look.\n${CALL}`, HERMES);
    const { output, tool_choice, tools } = await respond({ tools: TOOLS });
    expect(output).toMatchObject([
      { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'I look.\n' }] },
      { type: 'function_call', name: 'get_weather', arguments: '{"city": "Paris"}', status: 'completed' },
    ]);
    expect(output[1].call_id).toMatch(/^call_[0-9a-f]{16}$/);
    expect(tool_choice).toBe('auto');
    expect(tools).toMatchObject(TOOLS);
    expect(observed).toEqual([{ requestType: 'responses', isStreaming: false, hasToolCall: true }]);
  });

  test('events of reasoning, text and calls, in order; the last has the whole response', async () => {
    const { stream } = await saying(`<think>\nHm.\n</think>\n\nI look.\n${CALL}\n${CALL}`, QWEN3);
    const events = await stream({ tools: TOOLS });
    const callEvents = ['output_item.added', 'function_call_arguments.delta', 'function_call_arguments.done'];
    expect(typesOf(events)).toEqual([
      ...['created', 'in_progress'],
      ...['output_item.added', 'content_part.added', 'reasoning_text.delta', 'reasoning_text.done'],
      ...['content_part.done', 'output_item.done'],
      ...['output_item.added', 'content_part.added', 'output_text.delta', 'output_text.done'],
      ...['content_part.done', 'output_item.done'],
      ...[...callEvents, 'output_item.done', ...callEvents, 'output_item.done'],
      'completed',
    ]);
    const { output } = events.at(-1)!.response as Json;
    expect(output.map((item: Json) => item.type)).toEqual(['reasoning', 'message', 'function_call', 'function_call']);
    const done = events.filter(({ type }) => type === 'response.output_item.done');
    expect(done.map(({ item }) => item)).toEqual(output);
    expect(done.map(({ output_index }) => output_index)).toEqual([0, 1, 2, 3]);
    expect(output[0].content[0].text.trim()).toBe('Hm.');
  });

  test('what is cut short is incomplete, its call too', async () => {
    const { stream, respond } = await saying(CALL, HERMES);
    const response = (await stream({ tools: TOOLS, max_output_tokens: 14 })).at(-1)!.response as Json;
    expect(response).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
    expect(response.output[0]).toMatchObject({ type: 'function_call', status: 'incomplete' });
    expect(await respond({ max_output_tokens: 2 })).toMatchObject({ status: 'incomplete', max_output_tokens: 2 });
  });

  test('log probabilities of the text, whole and in pieces', async () => {
    const { respond, stream } = await saying('It is sunny.');
    const include = ['message.output_text.logprobs'];
    const { output, usage } = await respond({ include, top_logprobs: 1 });
    const { logprobs } = output[0].content[0];
    expect(logprobs).toHaveLength(usage.output_tokens);
    expect(logprobs[0]).toMatchObject({ token: 'It', logprob: 0, top_logprobs: [{ token: 'It' }] });
    const events = await stream({ include, top_logprobs: 1 });
    const deltas = events.filter(({ type }) => type === 'response.output_text.delta');
    expect(deltas.flatMap((event) => event.logprobs as Json[])).toEqual(logprobs.slice(0, deltas.length));
    expect(events.find(({ type }) => type === 'response.output_text.done')!.logprobs).toEqual(logprobs);
  });

  test('log probabilities begin with the text behind reasoning', async () => {
    const { stream } = await saying('Hm.</think>Yes.', QWEN3);
    const events = await stream({ include: ['message.output_text.logprobs'] });
    const [first] = events.filter(({ type }) => type === 'response.output_text.delta');
    expect((first!.logprobs as Json[]).map(({ token }) => token).join('')).toBe(first!.delta as string);
  });

  test('fields of the request are told', async () => {
    const fields = { instructions: 'Be brief.', metadata: { a: 'b' }, user: 'u', temperature: 0.5, top_p: 0.9 };
    const { respond, prompt } = await saying('Yes.');
    expect(await respond({ ...fields, reasoning: { effort: 'low' }, truncation: 'auto' })).toMatchObject({
      ...fields,
      ...{ reasoning: { effort: 'low' }, truncation: 'auto', tool_choice: 'none', error: null, status: 'completed' },
    });
    expect(prompt()).toContain('<|im_start|>system\nBe brief.<|im_end|>');
  });

  test('a failure on the way', async () => {
    const { post, engine } = await testServer({ manual: true, script: () => ({ tokenIds: Array(9).fill(298) }) });
    const response = await post(RESPONSES, { input: 'Hi', stream: true });
    engine.step();
    engine.fail(new Error('boom'));
    const last = typedEvents(await response.text()).at(-1)!;
    expect(schemaErrors('ResponseStreamEvent', last)).toBe('');
    expect(last).toMatchObject({
      type: 'response.failed',
      response: { status: 'failed', error: { code: 'server_error' } },
    });
    expect(JSON.stringify(last)).not.toContain('boom');
  });
});

describe('conversations', () => {
  test('items become the conversation of the template', async () => {
    const { respond, prompt } = await saying('Yes.', HERMES);
    await respond({
      input: [
        { role: 'user', content: [{ type: 'input_text', text: 'Weather?' }] },
        { type: 'reasoning', id: 'rs_1', summary: [], content: [{ type: 'reasoning_text', text: 'Hm.' }] },
        { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'I look.' }] },
        { type: 'function_call', call_id: 'c', name: 'get_weather', arguments: '{"city": "Paris"}' },
        { type: 'function_call_output', call_id: 'c', output: 'sunny' },
      ],
    });
    expect(prompt()).toContain('I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}');
    expect(prompt()).toContain('<tool_response>\nsunny\n</tool_response>');
    expect(prompt().match(/<\|im_start\|>assistant/g)).toHaveLength(2);
  });

  test('previous_response_id goes on with all that was said, but for the instructions', async () => {
    const { respond, prompt } = await saying([CALL, 'Sunny.', 'Bye.'], HERMES);
    const first = await respond({ tools: TOOLS, instructions: 'Be brief.' });
    const output = [{ type: 'function_call_output', call_id: first.output[0].call_id, output: 'sunny' }];
    const second = await respond({ previous_response_id: first.id, input: output });
    await respond({ previous_response_id: second.id, input: 'Thanks.' });
    expect(prompt()).not.toContain('Be brief.');
    const told = ['Weather in Paris?', '<tool_call>', 'sunny', 'Sunny.', 'Thanks.'].map((text) =>
      prompt().indexOf(text),
    );
    expect(told).toEqual([...told].sort((a, b) => a - b));
    expect(told).not.toContain(-1);
  });

  test('an item that this server has made may be named', async () => {
    const { respond, ask, prompt } = await saying(['It is sunny.', 'Yes.']);
    const { output } = await respond();
    await respond({
      input: [
        { type: 'item_reference', id: output[0].id },
        { role: 'user', content: 'Sure?' },
      ],
    });
    expect(prompt()).toContain('assistant\nIt is sunny.<|im_end|>');
    expect((await ask({ input: [{ type: 'item_reference', id: 'msg_x' }] })).status).toBe(404);
  });

  test('truncation auto leaves out the oldest items, never the last', async () => {
    const { respond, ask, prompt } = await saying('Yes.', { maxModelLen: 128 });
    const input = [
      { role: 'system', content: 'Be brief.' },
      ...Array.from({ length: 40 }, (_, i) => ({ role: 'user', content: `Question number ${i}` })),
    ];
    expect((await ask({ input, max_output_tokens: 8 })).status).toBe(400);
    await respond({ input, max_output_tokens: 8, truncation: 'auto' });
    expect(prompt()).toContain('Be brief.');
    expect(prompt()).not.toContain('number 0<');
    expect(prompt()).toContain('number 39<');
  });

  test('store false: nothing is kept; a stream is', async () => {
    const { respond, stream, get } = await saying('Yes.');
    const { id } = await respond({ store: false });
    const missing = await get(`${RESPONSES}/${id}`);
    expect(missing.status).toBe(404);
    expect(await missing.json()).toMatchObject({
      error: { type: 'invalid_request_error', message: `Response with id '${id}' not found.`, code: 404 },
    });
    const { response } = (await stream()).at(-1)! as Json;
    expect(await (await get(`${RESPONSES}/${response.id}`)).json()).toEqual(response);
  });

  test('with several API servers what needs the store is refused', async () => {
    const { respond, ask } = await saying('Yes.', { apiServerCount: 2 });
    const { id } = await respond();
    for (const fields of [{ background: true }, { previous_response_id: id }]) {
      const { status, body } = await ask(fields);
      expect(status).toBe(400);
      expect(body.error.param).toBe(Object.keys(fields)[0]);
    }
  });
});

describe('refusals', () => {
  test.each<[Json, string]>([
    [{ input: [{ role: 'user', content: [{ type: 'input_image' }] }] }, 'input'],
    [{ input: [{ type: 'computer_call' }] }, 'input'],
    [{ input: 5 }, 'input'],
    [{ tools: [{ type: 'web_search' }] }, 'tools'],
    [{ tools: TOOLS, tool_choice: { type: 'mcp' } }, 'tool_choice'],
    [{ tool_choice: 'required' }, 'tool_choice'],
    [{ reasoning: { summary: 'detailed' } }, 'reasoning.summary'],
    [{ text: { verbosity: 'low' } }, 'text.verbosity'],
    [{ text: { format: { type: 'json_schema', name: 'x' } } }, 'text'],
    [{ background: true, store: false }, 'background'],
    [{ metadata: { a: 1 } }, 'metadata'],
    [{ metadata: { a: 'x'.repeat(513) } }, 'metadata'],
    [{ prompt: { id: 'p' } }, 'prompt'],
    [{ conversation: 'c' }, 'conversation'],
    [{ enable_response_messages: true }, 'enable_response_messages'],
    [{ max_output_tokens: 0 }, 'max_output_tokens'],
    [{ kv_transfer_params: {} }, 'kv_transfer_params'],
  ])('%j', async (fields, name) => {
    const { status, body } = await (await saying('', HERMES)).ask(fields);
    expect(status).toBe(400);
    expect(body.error.param ?? body.error.message).toContain(name);
  });

  test('allowed_tools hides the others', async () => {
    const { respond, prompt } = await saying('Yes.', HERMES);
    const tools = [...TOOLS, { type: 'function', name: 'get_time' }];
    const allowed = [{ type: 'function', name: 'get_time' }];
    await respond({ tools, tool_choice: { type: 'allowed_tools', mode: 'auto', tools: allowed } });
    expect(prompt()).toContain('get_time');
    expect(prompt()).not.toContain('get_weather');
  });

  test('sampling fields, priority and headers reach the engine', async () => {
    const { post, engine } = await saying('Yes.', { schedulingPolicy: 'priority' });
    const fields = { temperature: 0.5, top_p: 0.9, top_k: 7, stop: ['a'], seed: 1, priority: 4, cache_salt: 's' };
    const headers = { traceparent: '00-1-2-01' };
    expect((await post(RESPONSES, { input: 'Hi', ...fields }, { headers })).status).toBe(200);
    const [request] = engine.requests;
    expect(request).toMatchObject({ priority: 4, cacheSalt: 's', traceHeaders: { traceparent: '00-1-2-01' } });
    expect(request!.params).toMatchObject({ temperature: 0.5, topP: 0.9, topK: 7, stop: ['a'], seed: 1 });
  });

  test('text.format is a schema to keep to', async () => {
    const { respond, engine } = await saying('"x"');
    await respond({ text: { format: { type: 'json_schema', name: 'x', schema: { type: 'string' } } } });
    expect(engine.requests[0]!.params.structuredOutputs).not.toBeNull();
  });
});

describe('in the background', () => {
  const manual = { manual: true, script: () => ({ tokenIds: [298, 299, 300] }) };
  const ASK = { model: 'demo', input: 'Hi', background: true, max_output_tokens: 3 };

  test('queued, in progress, completed', async () => {
    const { postJson, get, engine } = await testServer(manual);
    const { body } = await postJson(RESPONSES, ASK);
    expect(body).toMatchObject({ status: 'queued', background: true, output: [] });
    const state = async () => (await get(`${RESPONSES}/${body.id}`)).json() as Promise<Json>;
    engine.step();
    expect((await state()).status).toBe('in_progress');
    expect((await postJson(RESPONSES, { input: 'x', previous_response_id: body.id })).status).toBe(400);
    engine.step();
    engine.step();
    const done = await state();
    expect(done).toMatchObject({ status: 'incomplete', usage: { output_tokens: 3 } });
    expect(schemaErrors('Response', done)).toBe('');
    expect((await postJson(`${RESPONSES}/${body.id}/cancel`, {})).status).toBe(400);
    expect((await get(`${RESPONSES}/${body.id}?stream=true`)).status).toBe(400);
  });

  test('cancelled: the engine stops', async () => {
    const { postJson, get, engine } = await testServer(manual);
    const { id } = (await postJson(RESPONSES, ASK)).body;
    const { status, body } = await postJson(`${RESPONSES}/${id}/cancel`, {});
    expect(status).toBe(200);
    expect(body.status).toBe('cancelled');
    expect(engine.aborted).toHaveLength(1);
    expect(await (await get(`${RESPONSES}/${id}`)).json()).toEqual(body);
    expect((await postJson(`${RESPONSES}/resp_x/cancel`, {})).status).toBe(404);
  });

  test('deleted: the engine stops, and nothing is kept', async () => {
    const { app, postJson, get, engine } = await testServer(manual);
    const { id } = (await postJson(RESPONSES, ASK)).body;
    const remove = () => app.fetch(new Request(`http://localhost${RESPONSES}/${id}`, { method: 'DELETE' }));
    expect(await (await remove()).json()).toEqual({ id, object: 'response', deleted: true });
    expect(engine.aborted).toHaveLength(1);
    expect((await get(`${RESPONSES}/${id}`)).status).toBe(404);
    expect((await remove()).status).toBe(404);
  });

  test('a client that leaves ends nothing, and may follow again from where it was', async () => {
    const { post, get, engine } = await testServer(manual);
    const controller = new AbortController();
    const first = await post(RESPONSES, { ...ASK, stream: true, request_id: 'resp_b' }, { signal: controller.signal });
    engine.step();
    controller.abort();
    await first.body!.cancel();
    expect(engine.aborted).toEqual([]);
    const live = await get(`${RESPONSES}/resp_b?stream=true&starting_after=2`);
    engine.step();
    engine.step();
    const text = await live.text();
    const all = await (await get(`${RESPONSES}/resp_b?stream=true`)).text();
    expect(typesOf(typedEvents(all)).slice(0, 4)).toEqual(['created', 'queued', 'in_progress', 'output_item.added']);
    expect(typesOf(typedEvents(all)).at(-1)).toBe('completed');
    expect(all.trim().split('\n\n').slice(3)).toEqual(text.trim().split('\n\n'));
    expect((await get(`${RESPONSES}/resp_b?stream=true&starting_after=x`)).status).toBe(400);
  });

  test('a refusal of the engine leaves nothing behind', async () => {
    const { postJson, get, engine } = await testServer(manual);
    engine.refusal = new Error('boom');
    expect((await postJson(RESPONSES, { ...ASK, request_id: 'resp_c' })).status).toBe(500);
    expect((await get(`${RESPONSES}/resp_c`)).status).toBe(404);
  });

  test('their number is bounded', async () => {
    const { postJson, engine } = await testServer({ manual: true });
    for (let i = 0; i < 256; i++) expect((await postJson(RESPONSES, ASK)).status).toBe(200);
    expect((await postJson(RESPONSES, ASK)).status).toBe(503);
    for (let i = 0; i < 3; i++) engine.step();
    expect((await postJson(RESPONSES, ASK)).status).toBe(200);
  });

  test('an id is given once', async () => {
    const { ask, respond } = await saying('Yes.');
    expect((await respond({ request_id: 'mine' })).id).toBe('resp_mine');
    expect((await ask({ request_id: 'mine' })).body.error.param).toBe('request_id');
  });
});

test('a client that leaves frees what its response holds', async () => {
  const { post, engine } = await testServer({ manual: true });
  const controller = new AbortController();
  const response = await post(RESPONSES, { input: 'Hi', stream: true }, { signal: controller.signal });
  expect(response.status).toBe(200);
  controller.abort();
  expect(engine.aborted).toHaveLength(1);
});
