import { describe, expect, test } from 'bun:test';
import type { Script } from './fake-engine.ts';
import { CHAT, COMPLETIONS, type Json, messages, sseEvents, testServer } from './http.ts';
import { type CompletionChoice, completionSchemaErrors } from './openai-schema.ts';

const script = (): Script => ({ tokenIds: [298, 454, 304] });

async function complete(fields: Json, said: (index: number) => Script = script) {
  const server = await testServer({ script: (_, index) => said(index) });
  const { status, body } = await server.postJson(COMPLETIONS, { model: 'demo', max_tokens: 3, ...fields });
  if (status === 200) expect(completionSchemaErrors(body)).toBe('');
  return { status, body, choices: body.choices as CompletionChoice[], requests: server.engine.requests };
}

async function stream(fields: Json): Promise<Json[]> {
  const server = await testServer({ script });
  const response = await server.post(COMPLETIONS, { model: 'demo', max_tokens: 3, stream: true, ...fields });
  const events = sseEvents(await response.text());
  expect(events.pop()).toBe('[DONE]');
  for (const event of events) expect(completionSchemaErrors(event)).toBe('');
  return events;
}

describe('logprob_token_ids', () => {
  const logprobs = [454, 298, 300].map((id) => [
    { tokenId: id, logprob: -0.5, rank: 1, decodedToken: `t${id}` },
    { tokenId: 300, logprob: -4, rank: 1, decodedToken: 't300' },
    { tokenId: 7, logprob: -9, rank: 2, decodedToken: 't7' },
  ]);

  test('say which tokens the answer has log probabilities of, however many `logprobs` are wanted', async () => {
    const { choices, requests } = await complete(
      { prompt: 'x', logprobs: 0, logprob_token_ids: [300, 7, 300] },
      () => ({ tokenIds: [454, 298, 300], logprobs }),
    );
    expect(requests[0]!.params.logprobTokenIds).toEqual([300, 7]);
    expect(choices[0]!.logprobs!.top_logprobs).toEqual([
      { t454: -0.5, t300: -4, t7: -9 },
      { t298: -0.5, t300: -4, t7: -9 },
      { t300: -0.5, t7: -9 },
    ]);
  });

  test.each([
    [{}, '`logprobs` must be set'],
    [{ logprobs: 1, logprob_token_ids: [] }, 'must not be an empty list'],
    [{ logprobs: 1, use_beam_search: true }, 'is not supported with beam search'],
    [{ logprobs: 1, echo: true, max_tokens: 0 }, 'no output tokens are generated'],
    [
      { logprobs: 1, logprob_token_ids: [5, 2048] },
      'token_id(s) [2048] in logprob_token_ids contain out-of-vocab token ids',
    ],
    [
      { logprobs: 1, logprob_token_ids: Array.from({ length: 129 }, (_, i) => i) },
      'of length 129, which is greater than max allowed: 128',
    ],
  ])('%j is refused', async (fields, message) => {
    const { status, body } = await complete({ prompt: 'x', logprob_token_ids: [1], ...fields });
    expect(status).toBe(400);
    expect(body.error.param).toBe('logprob_token_ids');
    expect(body.error.message).toContain(message);
  });

  test('a chat needs `logprobs: true`', async () => {
    const server = await testServer({ script: () => ({ tokenIds: [454], logprobs: logprobs.slice(0, 1) }) });
    const ask = (fields: Json) =>
      server.postJson(CHAT, { messages, max_tokens: 1, logprob_token_ids: [300, 7], ...fields });
    const { body } = await ask({ logprobs: true });
    const [position] = body.choices[0].logprobs.content;
    expect(position.top_logprobs.map(({ token, logprob }: Json) => [token, logprob])).toEqual([
      ['t454', -0.5],
      ['t300', -4],
      ['t7', -9],
    ]);
    const refused = await ask({});
    expect(refused.status).toBe(400);
    expect(refused.body.error.message).toContain('`logprobs` must be set to true');
  });
});

describe('prompts', () => {
  test('string, strings, ids, lists of ids', async () => {
    const promptsOf = async (prompt: Json) =>
      (await complete({ prompt })).requests.map(({ promptTokenIds }) => [...promptTokenIds]);
    const [sky] = await promptsOf('The sky');
    expect(await promptsOf(['The sky', 'The sky'])).toEqual([sky!, sky!]);
    expect(await promptsOf(sky!)).toEqual([sky!]);
    expect(await promptsOf([sky!, [5]])).toEqual([sky!, [5]]);
  });

  test('choices are indexed prompt * n + i, usage is summed', async () => {
    const { choices, body } = await complete({ prompt: ['The', 'The sky'], n: 2 }, (index) => ({
      tokenIds: [300 + index, 5, 5],
    }));
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(body.usage).toMatchObject({ completion_tokens: 12, prompt_tokens: 1 + 3 });
  });

  test.each([
    ['', 'prompt'],
    [null, 'prompt'],
    [[], 'prompt'],
    [[[]], 'prompt'],
    [['a', 1], 'prompt'],
    [[-1], 'prompt'],
    [[1.5], 'prompt'],
    [{}, 'prompt'],
  ])('%p is refused', async (prompt, param) => {
    const { status, body } = await complete({ prompt });
    expect(status).toBe(400);
    expect(body.error.param).toBe(param);
  });

  test('ids beyond the vocabulary are refused, however large', async () => {
    for (const id of [2048, 2 ** 31, 2 ** 53]) {
      const { status, body } = await complete({ prompt: [1, id] });
      expect(status).toBe(400);
      expect(body.error.message).toBe(`Token id ${id} is out of vocabulary`);
    }
  });

  test('a failing prompt takes the others with it', async () => {
    const server = await testServer({ manual: true });
    const { status } = await server.postJson(COMPLETIONS, { prompt: [[1], [99999]] });
    expect(status).toBe(400);
    expect(server.engine.numUnfinishedRequests).toBe(0);
  });
});

describe('answer', () => {
  test("an operator's max_tokens is the most that a request gets", async () => {
    const server = await testServer({ script, flags: { overrideGenerationConfig: { max_new_tokens: 5 } } });
    for (const max_tokens of [undefined, 3, 7]) await server.postJson(COMPLETIONS, { prompt: 'The', max_tokens });
    expect(server.engine.requests.map(({ params }) => params.maxTokens)).toEqual([5, 3, 5]);
  });

  test('max_tokens is 16 unless given, null too', async () => {
    const server = await testServer({ script });
    await server.postJson(COMPLETIONS, { prompt: 'The', max_tokens: null });
    await server.postJson(COMPLETIONS, { prompt: 'The' });
    expect(server.engine.requests.map(({ params }) => params.maxTokens)).toEqual([16, 16]);
  });

  test('echo', async () => {
    const { choices } = await complete({ prompt: 'The sky', echo: true });
    expect(choices[0]).toMatchObject({ text: 'The skyThe capital of' });
    const ids = await complete({ prompt: [298, 454], echo: true });
    expect(ids.choices[0]!.text).toBe('The capitalThe capital of');
  });

  test('echo of the prompt alone', async () => {
    const { choices } = await complete({ prompt: [298, 454], echo: true, max_tokens: 0, logprobs: 0 });
    expect(choices[0]).toMatchObject({ text: 'The capital', finish_reason: 'length' });
    expect(choices[0]!.logprobs!.token_logprobs).toEqual([null, 0]);
    expect((await complete({ prompt: 'The', max_tokens: 0 })).body.error.param).toBe('max_tokens');
  });

  test('text offsets count characters, not UTF-16 units', async () => {
    const { tokenizer } = (await testServer()).engine;
    const tokenIds = [...tokenizer!.encode('🦜!', { addSpecialTokens: false })];
    const { choices } = await complete({ prompt: 'The', logprobs: 0, max_tokens: tokenIds.length }, () => ({
      tokenIds,
    }));
    const { tokens, text_offset: offsets } = choices[0]!.logprobs!;
    let offset = 0;
    for (const [i, token] of tokens.entries()) {
      expect(offsets[i]).toBe(offset);
      offset += [...token].length;
    }
  });

  test("prompt_logprobs and token ids are in the choice; the prompt's own token leads each entry", async () => {
    const own = { tokenId: 454, logprob: -3, rank: 4, decodedToken: ' capital' };
    const best = { tokenId: 5, logprob: -1, rank: 1, decodedToken: '&' };
    const { choices, body } = await complete(
      { prompt: [298, 454], prompt_logprobs: 1, return_token_ids: true },
      () => ({
        ...script(),
        promptLogprobs: [null, [own, best]],
      }),
    );
    expect(choices[0]!.prompt_logprobs).toEqual([
      null,
      { '454': { logprob: -3, rank: 4, decoded_token: ' capital' }, '5': { logprob: -1, rank: 1, decoded_token: '&' } },
    ]);
    expect(choices[0]).toMatchObject({ token_ids: [298, 454, 304], prompt_token_ids: [298, 454] });
    expect(body.prompt_logprobs).toBeUndefined();
  });

  test('the chosen token leads also where keys look like numbers', async () => {
    const server = await testServer({
      script: () => ({
        tokenIds: [298],
        logprobs: [
          [
            { tokenId: 298, logprob: -2, rank: 2, decodedToken: '9' },
            { tokenId: 5, logprob: -1, rank: 1, decodedToken: '1' },
          ],
        ],
      }),
    });
    const response = await server.post(COMPLETIONS, { prompt: 'The', max_tokens: 1, logprobs: 1 });
    expect(await response.text()).toContain('"top_logprobs":[{"9":-2,"1":-1}]');
  });
});

describe('stream', () => {
  test('deltas, finish reason, usage', async () => {
    const events = await stream({ prompt: 'The', stream_options: { include_usage: true } });
    expect(events.map((event) => event.choices[0]?.text)).toEqual(['The', ' capital', ' of', undefined]);
    expect(events.map((event) => event.choices[0]?.finish_reason)).toEqual([null, null, 'length', undefined]);
    expect(events[3].usage).toEqual({ prompt_tokens: 1, total_tokens: 4, completion_tokens: 3 });
  });

  test('several prompts', async () => {
    const events = await stream({ prompt: ['The', 'The sky'], n: 2 });
    const texts = ['', '', '', ''];
    for (const { choices } of events) texts[choices[0].index] += choices[0].text;
    expect(texts).toEqual(Array(4).fill('The capital of'));
  });

  test('echo comes with the first token, and so do its log probabilities', async () => {
    const events = await stream({ prompt: [298, 454], echo: true, logprobs: 0 });
    expect(events.map((event) => event.choices[0].text)).toEqual(['The capitalThe', ' capital', ' of']);
    expect(events.map((event) => event.choices[0].logprobs.text_offset)).toEqual([[0, 3, 11], [14], [22]]);
  });

  test('prompt ids once, token ids each time', async () => {
    const choices = (await stream({ prompt: [298], return_token_ids: true })).map((event) => event.choices[0]);
    expect(choices.map((choice) => choice.prompt_token_ids)).toEqual([[298], undefined, undefined]);
    expect(choices.flatMap((choice) => choice.token_ids)).toEqual([298, 454, 304]);
  });
});

test('a server without a tokenizer takes and gives ids', async () => {
  const server = await testServer({ script, flags: { skipTokenizerInit: true } });
  const { body } = await server.postJson(COMPLETIONS, {
    prompt: [1, 2],
    max_tokens: 2,
    return_token_ids: true,
    logprobs: 0,
  });
  expect(body.choices[0]).toMatchObject({ text: '', token_ids: [298, 454] });
  expect(body.choices[0].logprobs.tokens).toEqual(['token_id:298', 'token_id:454']);
  expect((await server.postJson(COMPLETIONS, { prompt: 'text' })).status).toBe(400);
  expect((await server.postJson('/tokenize', { prompt: 'text' })).status).toBe(400);
  expect((await server.postJson(COMPLETIONS, { prompt: [1], stop: ['x'] })).body.error.param).toBe('stop');
});
