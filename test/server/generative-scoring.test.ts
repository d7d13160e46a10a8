import { describe, expect, test } from 'bun:test';
import type { PositionLogprobs } from '../../src/engine/engine-client.ts';
import type { Script } from './fake-engine.ts';
import { type Json, testServer } from './http.ts';

const PATH = '/generative_scoring';
const entry = (tokenId: number, logprob: number) => ({ tokenId, logprob, rank: 1, decodedToken: '' });

/** What the fake model thinks of tokens 7, 8 and 9 behind a prompt of three tokens, and of four; it says token 5. */
const LOGPROBS = [
  [-1, -2, -3],
  [-4, -0.5, -1],
];
const script = (length: number): Script => {
  const logprobs: PositionLogprobs = [
    entry(5, -9),
    ...LOGPROBS[(length + 1) % 2]!.map((each, i) => entry(7 + i, each)),
  ];
  return { tokenIds: [5], logprobs: [logprobs] };
};

async function score(fields: Json, flags = {}) {
  const server = await testServer({ script: ({ promptTokenIds }) => script(promptTokenIds.length), flags });
  const { status, body } = await server.postJson(PATH, {
    query: [11, 12],
    items: [[21], [22, 23]],
    label_token_ids: [7, 8],
    ...fields,
  });
  return { status, body, requests: server.engine.requests, engine: server.engine };
}

const prompts = (requests: { promptTokenIds: Int32Array }[]) =>
  requests.map(({ promptTokenIds }) => [...promptTokenIds]);

describe('generative scoring', () => {
  test('the score is the first label’s share among the labels, or among all tokens', async () => {
    const among = await score({ request_id: 'mine' });
    expect(among.status).toBe(200);
    const share = (a: number, b: number) => Math.exp(a) / (Math.exp(a) + Math.exp(b));
    expect(among.body).toEqual({
      id: 'generative-scoring-mine',
      object: 'list',
      created: expect.any(Number),
      model: 'demo',
      data: [
        { index: 0, object: 'score', score: expect.closeTo(share(-1, -2), 10) },
        { index: 1, object: 'score', score: expect.closeTo(share(-4, -0.5), 10) },
      ],
      usage: { prompt_tokens: 7, completion_tokens: 2, total_tokens: 9 },
    });
    const all = await score({ label_token_ids: [9, 7, 9], apply_softmax: false });
    expect(all.body.data.map(({ score }: Json) => score)).toEqual([Math.exp(-3), Math.exp(-1)]);
    expect(all.requests[0]!.params).toMatchObject({ maxTokens: 1, logprobTokenIds: [9, 7], n: 1 });
  });

  test('query and item, or item and query, are one prompt, cut off where there is no room for a token', async () => {
    expect(prompts((await score({})).requests)).toEqual([
      [11, 12, 21],
      [11, 12, 22, 23],
    ]);
    expect(prompts((await score({ item_first: true })).requests)).toEqual([
      [21, 11, 12],
      [22, 23, 11, 12],
    ]);
    const cut = await score({ items: [[1, 2, 3, 4, 5, 6, 7, 8, 9]] }, { maxModelLen: 8 });
    expect(prompts(cut.requests)).toEqual([[11, 12, 1, 2, 3, 4, 5]]);
  });

  test('texts are tokenized apart, and only the query gets special tokens', async () => {
    const { requests, engine } = await score({ query: 'Is it ', items: ['so?', 'not?'] });
    const ids = (text: string, addSpecialTokens: boolean) => [...engine.tokenizer!.encode(text, { addSpecialTokens })];
    expect(prompts(requests)).toEqual(['so?', 'not?'].map((item) => [...ids('Is it ', true), ...ids(item, false)]));
    const plain = await score({ query: 'Is it ', items: ['so?'], add_special_tokens: false });
    expect(prompts(plain.requests)).toEqual([[...ids('Is it ', false), ...ids('so?', false)]]);
  });

  test.each<[Json, string, string | null]>([
    [{ label_token_ids: [] }, 'must contain at least one token ID', 'label_token_ids'],
    [{ label_token_ids: [7, 2048] }, 'label_token_id 2048 is out of vocabulary range [0, 2048)', 'label_token_ids'],
    [{ label_token_ids: [-1] }, 'label_token_id -1 is out', 'label_token_ids'],
    [{ label_token_ids: Array.from({ length: 129 }, (_, i) => i) }, 'at most 128', 'label_token_ids'],
    [{ label_token_ids: 'x' }, 'valid list', null],
    [{ items: [] }, 'at least one item', 'items'],
    [{ items: ['a', [1]] }, 'list of strings or a list of lists', 'items'],
    [{ items: 'a' }, 'list of strings or a list of lists', 'items'],
    [{ items: Array(2049).fill('a') }, 'at most 2048', 'items'],
    [{ items: [[4000]] }, '4000 is out of vocabulary', null],
    [{ query: [], items: [[]] }, 'cannot be empty', null],
    [{ query: { text: 'x' } }, 'query must be', 'query'],
    [{ query: undefined }, 'query', null],
    [{ priority: 3 }, 'priority scheduling is not enabled', 'priority'],
  ])('%j is refused', async (fields, message, param) => {
    const { status, body, requests } = await score(fields);
    expect(status).toBe(400);
    expect(body.error.message).toContain(message);
    if (param !== null) expect(body.error.param).toBe(param);
    expect(requests).toEqual([]);
  });

  test('it wants the key', async () => {
    const server = await testServer({ flags: { apiKey: ['secret'] } });
    expect((await server.post(PATH, {})).status).toBe(401);
    expect((await server.post(PATH, {}, { headers: { Authorization: 'Bearer secret' } })).status).toBe(400);
  });

  test('a model that is not there is 404', async () => {
    expect((await score({ model: 'other' })).status).toBe(404);
  });
});
