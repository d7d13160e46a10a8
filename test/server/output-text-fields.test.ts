import { describe, expect, test } from 'bun:test';
import { CHAT, COMPLETIONS, type Json, messages, RESPONSES, testServer } from './http.ts';

const END_OF_TEXT = 2039;
const script = () => ({ tokenIds: [298, 454, END_OF_TEXT, 304] });

/** Each endpoint with a way to ask it, and to the text that it answers. */
const ENDPOINTS: [path: string, request: Json, textOf: (body: Json) => string][] = [
  [CHAT, { messages, max_tokens: 4 }, (body) => body.choices[0].message.content],
  [COMPLETIONS, { prompt: 'What is', max_tokens: 4 }, (body) => body.choices[0].text],
  [RESPONSES, { input: 'What is?', max_output_tokens: 4 }, (body) => body.output[0].content[0].text],
];

describe.each(ENDPOINTS)('%s', (path, request, textOf) => {
  const answer = async (fields: Json) => {
    const server = await testServer({ script });
    const { status, body } = await server.postJson(path, { ...request, ignore_eos: true, ...fields });
    expect(status).toBe(200);
    return textOf(body);
  };

  test('skip_special_tokens leaves special tokens out unless it is false', async () => {
    expect(await answer({})).toBe('The capital of');
    expect(await answer({ skip_special_tokens: false })).toBe('The capital<|endoftext|> of');
  });

  test('include_stop_str_in_output keeps the stop string', async () => {
    expect(await answer({ stop: [' cap'] })).toBe('The');
    expect(await answer({ stop: [' cap'], include_stop_str_in_output: true })).toBe('The cap');
  });
});

test('spaces_between_special_tokens reaches the detokenizer', async () => {
  const server = await testServer({ script });
  for (const [path, request] of ENDPOINTS.slice(0, 2)) {
    for (const value of [false, true]) await server.post(path, { ...request, spaces_between_special_tokens: value });
  }
  const seen = server.engine.requests.map(({ params }) => params.spacesBetweenSpecialTokens);
  expect(seen).toEqual([false, true, false, true]);
});

test('documents are for the chat template', async () => {
  const server = await testServer({ flags: { trustRequestChatTemplate: true } });
  const documents = [{ text: 'Paris is the capital of France.' }, { text: 'Rome is that of Italy.' }];
  const template = '{% for document in documents %}{{ document.text }}|{% endfor %}';
  const { body } = await server.postJson(CHAT, {
    ...{ messages, documents, max_tokens: 1, return_prompt_text: true },
    chat_template: template,
  });
  expect(body.prompt_text).toBe('Paris is the capital of France.|Rome is that of Italy.|');
});

test('return_token_strs of /tokenize', async () => {
  const server = await testServer();
  for (const request of [{ prompt: 'The capital' }, { messages }]) {
    const { body } = await server.postJson('/tokenize', { ...request, return_token_strs: true });
    expect(body.token_strs).toEqual(body.tokens.map((id: number) => server.engine.tokenizer!.idToToken(id)));
    expect((await server.postJson('/tokenize', request)).body.token_strs).toBeUndefined();
  }
});

test('add_special_tokens reaches the tokenizer, by default for texts and not for conversations, whose template has them', async () => {
  const server = await testServer({ script });
  const seen: boolean[] = [];
  const encode = server.engine.encode.bind(server.engine);
  server.engine.encode = (text, options) => {
    seen.push(options.addSpecialTokens);
    return encode(text, options);
  };
  for (const [path, request, byDefault] of [
    [COMPLETIONS, { prompt: 'What is', max_tokens: 1 }, true],
    [CHAT, { messages, max_tokens: 1 }, false],
    ['/tokenize', { prompt: 'What is' }, true],
    ['/tokenize', { messages }, false],
  ] as const) {
    for (const fields of [{}, { add_special_tokens: true }, { add_special_tokens: false }]) {
      expect((await server.post(path, { ...request, ...fields })).status).toBe(200);
    }
    expect(seen.splice(0)).toEqual([byDefault, true, false]);
  }
});
