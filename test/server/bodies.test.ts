import { describe, expect, spyOn, test } from 'bun:test';
import { CHAT, COMPLETIONS, type Json, messages, testServer } from './http.ts';

const script = () => ({ tokenIds: [298, 454, 304] });
const chat = (fields: Json = {}) => ({ messages, max_tokens: 3, ...fields });

describe('bodies', () => {
  test('too large: announced or not, 413', async () => {
    const server = await testServer({ flags: { requestBodyLimit: 1000 } });
    const large = JSON.stringify(chat({ user: 'x'.repeat(1000) }));
    const announced = await server.post(CHAT, large, { headers: { 'Content-Length': String(large.length) } });
    expect(announced.status).toBe(413);
    expect((await announced.json()).error.code).toBe(413);
    let pulled = 0;
    const endless = new ReadableStream({
      pull(controller) {
        pulled++;
        controller.enqueue(new Uint8Array(100).fill(0x20));
      },
    });
    const chunked = new Request(`http://localhost${CHAT}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: endless,
    });
    expect((await server.app.fetch(chunked)).status).toBe(413);
    expect(pulled).toBeLessThan(20);
    expect((await server.postJson(CHAT, chat({ max_tokens: 1 }))).status).toBe(200);
  });

  test.each([
    ['another content type', '{}', { 'Content-Type': 'text/plain' }, null],
    ['no body', '', {}, 'body'],
    ['not an object', '[]', {}, 'body'],
    ['NaN', '{"messages": [], "temperature": NaN}', {}, 'body.32'],
    ['too deep', `{"messages": ${'['.repeat(200)}${']'.repeat(200)}}`, {}, null],
    ['very deep', `{"tools": ${'['.repeat(1e6)}${']'.repeat(1e6)}}`, {}, null],
  ])('%s', async (_, text, headers, param) => {
    const response = await (await testServer()).post(CHAT, text, { headers: headers as Record<string, string> });
    expect(response.status).toBe(400);
    expect((await response.json()).error).toMatchObject({ type: 'Bad Request', param, code: 400 });
  });

  test('values by the hundred thousand are refused before they are checked one by one', async () => {
    const server = await testServer();
    const post = (fields: Json) => server.postJson(CHAT, chat(fields));
    const bias = Object.fromEntries(Array.from({ length: 300_000 }, (_, i) => [i, 1]));
    for (const fields of [{ messages: Array(100_000).fill(messages[0]) }, { logit_bias: bias }, bias]) {
      const { status, body } = await post(fields);
      expect(status).toBe(400);
      expect(body.error.message).toBe('The request body has more than 262144 values besides numbers in lists.');
    }
    const prompt = Array(300_000).fill(5);
    expect((await server.postJson(COMPLETIONS, { prompt })).body.error.message).toContain('maximum context length');
  });

  test('names and strings by the million are refused before they are parsed', async () => {
    const server = await testServer();
    const million = (part: string) => `${part},`.repeat(1e6);
    const parse = spyOn(JSON, 'parse');
    try {
      for (const text of [`{${million('"a\\\\": 1')}"b": 2}`, `[${million('"\\""')}1]`, `[${million('[]')}1]`]) {
        const response = await server.post(COMPLETIONS, text);
        expect(response.status).toBe(400);
        expect(await response.text()).toContain('The request body has more than 262144 values');
      }
      expect(parse).not.toHaveBeenCalled();
    } finally {
      parse.mockRestore();
    }
    // Within a string there is nothing to count.
    const { body } = await server.postJson(COMPLETIONS, { prompt: '{["\\'.repeat(200_000) });
    expect(body.error.message).not.toContain('values');
  });

  test('broken UTF-8', async () => {
    const server = await testServer();
    const body = Buffer.concat([Buffer.from('{"prompt": "'), Buffer.from([0xff, 0xc3]), Buffer.from('"}')]);
    const headers = { 'Content-Type': 'application/json; charset=utf-8' };
    const response = await server.app.fetch(
      new Request(`http://localhost${COMPLETIONS}`, { method: 'POST', headers, body }),
    );
    expect(response.status).toBe(400);
  });

  test('a byte order mark and lone surrogates are no harm', async () => {
    const server = await testServer({ script });
    expect((await server.post(COMPLETIONS, `\ufeff${JSON.stringify({ prompt: 'x', max_tokens: 1 })}`)).status).toBe(
      200,
    );
    const surrogate = await server.post(COMPLETIONS, '{"prompt": "\\ud800 x", "max_tokens": 1, "echo": true}');
    expect(surrogate.status).toBe(200);
    expect(typeof (await surrogate.json()).choices[0].text).toBe('string');
  });

  test('findings are counted, named and bounded', async () => {
    const server = await testServer();
    const many = await server.postJson(CHAT, { messages: Array(50).fill({}), n: 'x' });
    const lines = many.body.error.message.split('\n');
    expect(lines[0]).toBe('51 validation errors:');
    expect(lines).toHaveLength(12);
    expect(lines[1]).toContain(
      "'type': 'missing', 'loc': 'body.messages.0.role', 'msg': 'Field required', 'input': '<dict of 0 items>'",
    );
    expect(many.body.error.param).toBe('body.messages.0.role');
    const millions = await server.postJson(CHAT, { messages: Array(1_000_000).fill(5) });
    expect(millions.body.error.message).toStartWith('1 validation error:');
    const long = await server.postJson(CHAT, { messages: 'x'.repeat(1e5) });
    expect(long.body.error.message.length).toBeLessThan(500);
  });

  test.each([
    ['temperature', 'warm', 'float_parsing'],
    ['n', 1.5, 'int_from_float'],
    ['stream', 'maybe', 'bool_parsing'],
    ['logit_bias', [], 'dict_type'],
    ['truncation_side', 'top', 'literal_error'],
    ['truncate_prompt_tokens', -2, 'greater_than_equal'],
    ['seed', 1e30, 'less_than_equal'],
    ['stop', ['a', 'b', 'c', 'd', 'e'], 'too_long'],
    ['stop', [1], 'list_type'],
    ['allowed_token_ids', [1, 'x'], 'int_parsing'],
    ['stream_interval', 0, 'greater_than_equal'],
    ['stream_options', 5, 'model_attributes_type'],
  ])('%s: %j is a finding', async (field, value, type) => {
    const { status, body } = await (await testServer()).postJson(CHAT, chat({ [field]: value }));
    expect(status).toBe(400);
    expect(body.error.param).toBe(`body.${field}`);
    expect(body.error.message).toContain(`'type': '${type}'`);
  });

  test('numbers and booleans as strings are taken as pydantic takes them', async () => {
    const server = await testServer({ script });
    const { status } = await server.postJson(
      CHAT,
      chat({ temperature: '0.5', top_k: '7', seed: 3.0, ignore_eos: 'yes' }),
    );
    expect(status).toBe(200);
    expect(server.engine.requests[0]!.params).toMatchObject({ temperature: 0.5, topK: 7, seed: 3, ignoreEos: true });
  });
});

describe('what is not there is refused by name', () => {
  test.each([
    ['watermarking', true],
    ['thinking_token_budget', 5],
    ['kv_transfer_params', {}],
    ['ec_transfer_params', {}],
    ['vllm_xargs', { a: 1 }],
    ['prompt_embeds', 'AAAA'],
    ['suffix', 'x'],
  ])('%s', async (field, value) => {
    const server = await testServer();
    const fields = { prompt: 'x', messages, [field]: value };
    const path = field === 'prompt_embeds' || field === 'suffix' ? COMPLETIONS : CHAT;
    const { status, body } = await server.postJson(path, fields);
    expect(status).toBe(400);
    expect(body.error.type).toBe('BadRequestError');
    expect(body.error.param).toStartWith(field);
    expect(body.error.message).toContain(field);
  });

  test('tool choices and parts other than text', async () => {
    const server = await testServer();
    const tools = [{ type: 'function', function: { name: 'f' } }];
    const paramOf = async (fields: Json) => (await server.postJson(CHAT, chat(fields))).body.error.param;
    expect(await paramOf({ tools, tool_choice: 'maybe' })).toBe('tool_choice');
    expect(await paramOf({ tools, tool_choice: { function: { name: 'g' } } })).toBe('tool_choice');
    expect(await paramOf({ tools, tool_choice: { function: {} } })).toBe('tool_choice.function.name');
    expect(await paramOf({ tools, tool_choice: { type: 'custom', function: { name: 'f' } } })).toBe('tool_choice.type');
    expect(await paramOf({ tool_choice: 'auto' })).toBe('tool_choice');
    expect(await paramOf({ tools: [] })).toBe('tools');
    const image = [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }];
    expect(await paramOf({ messages: image })).toContain('messages');
  });

  test('fields that ask for nothing pass', async () => {
    const server = await testServer({ script });
    const nothing = {
      use_beam_search: false,
      watermarking: false,
      response_format: { type: 'text' },
      structured_outputs: null,
      thinking_token_budget: -1,
      logprob_token_ids: null,
      vllm_xargs: { session_id: 's' },
      length_penalty: 1,
      parallel_tool_calls: true,
      mm_payload: 'tensors',
      user: 'me',
    };
    expect((await server.postJson(CHAT, chat(nothing))).status).toBe(200);
  });

  test('fields that do not go together', async () => {
    const server = await testServer();
    const paramOf = async (fields: Json) => (await server.postJson(CHAT, chat(fields))).body.error.param;
    expect(await paramOf({ stream_options: { include_usage: true } })).toBe('stream_options');
    expect(await paramOf({ stream: true, prompt_logprobs: 1 })).toBe('prompt_logprobs');
    expect(await paramOf({ top_logprobs: 2 })).toBe('top_logprobs');
    expect(await paramOf({ prompt_logprobs: -2 })).toBe('prompt_logprobs');
  });
});
