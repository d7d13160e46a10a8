import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import fc from 'fast-check';
import type { FlagValues } from '../../src/config/flags/index.ts';
import { type PoolingRequest, RequestEndedError } from '../../src/engine/engine-client.ts';
import { COMPLETIONS, messages, type TestServer, testServer } from './http.ts';
import { schemaErrors } from './openai-schema.ts';

const EMBEDDINGS = '/v1/embeddings';
const golden = (name: string) => join(import.meta.dir, '../goldens', name);

const embedder = (flags: Partial<FlagValues> = {}) => testServer({ flags: { runner: 'pooling', ...flags } });
/** The tokenizer stays the demo's. */
const classifier = (name: string, pool?: (request: PoolingRequest) => number[]) =>
  testServer({ pool, flags: { model: golden(name), servedModelName: ['demo'], hfOverrides: { vocab_size: 4096 } } });

/** The ids that the engine got, and the types of its tokens. */
const promptsOf = ({ engine }: TestServer) => engine.poolingRequests.map(({ promptTokenIds }) => [...promptTokenIds]);

describe('/v1/embeddings', () => {
  test("answers with OpenAI's shape, one item an input, in their order", async () => {
    const server = await embedder();
    const { status, body } = await server.postJson(EMBEDDINGS, { model: 'demo', input: ['one', [5, 6], 'three'] });
    expect(status).toBe(400);
    expect(body.error.message).toContain('list of strings');
    const good = await server.postJson(EMBEDDINGS, { model: 'demo', input: ['one', 'two and more'], user: 'me' });
    expect(good.status).toBe(200);
    expect(schemaErrors('CreateEmbeddingResponse', good.body)).toBe('');
    expect(good.body.id).toStartWith('embd-');
    expect(good.body.data.map((item: { index: number }) => item.index)).toEqual([0, 1]);
    const lengths = promptsOf(server).map((ids) => ids.length);
    expect(good.body.data.map((item: { embedding: number[] }) => item.embedding[1])).toEqual(lengths);
    expect(good.body.usage).toMatchObject({ prompt_tokens: lengths[0]! + lengths[1]!, completion_tokens: 0 });
  });

  test('ids are taken as they are, one list or several', async () => {
    const server = await embedder();
    await server.postJson(EMBEDDINGS, { input: [7, 8, 9] });
    await server.postJson(EMBEDDINGS, { input: [[1], [2, 3]] });
    expect(promptsOf(server)).toEqual([[7, 8, 9], [1], [2, 3]]);
  });

  test('base64 and bytes hold the numbers in the type and order asked for', async () => {
    const server = await testServer({ flags: { runner: 'pooling' }, pool: () => [1, -2.5, 0.1] });
    const encoded = async (fields: object) => {
      const { body } = await server.postJson(EMBEDDINGS, { input: 'x', encoding_format: 'base64', ...fields });
      return Buffer.from(body.data[0].embedding, 'base64');
    };
    const plain = await encoded({});
    expect([...new Float32Array(plain.buffer, plain.byteOffset, 3)]).toEqual([1, -2.5, Math.fround(0.1)]);
    expect((await encoded({ endianness: 'big' })).readFloatBE(4)).toBe(-2.5);
    expect((await encoded({ endianness: 'little', embed_dtype: 'bfloat16' })).readUInt16LE(0)).toBe(0x3f80);
    expect((await encoded({ endianness: 'little', embed_dtype: 'float16' })).readUInt16LE(0)).toBe(0x3c00);

    const bytes = await server.post(EMBEDDINGS, { input: ['x', 'y'], encoding_format: 'bytes' });
    expect(bytes.headers.get('content-type')).toBe('application/octet-stream');
    expect(await bytes.arrayBuffer()).toHaveProperty('byteLength', 24);
    const { data, usage } = JSON.parse(bytes.headers.get('metadata')!);
    expect(data[1]).toMatchObject({ index: 1, start: 12, end: 24, shape: [3], embed_dtype: 'float32' });
    expect(usage.prompt_tokens).toBe(2);
  });

  test('dimensions need a model that was trained for them', async () => {
    const plain = await embedder();
    const refused = await plain.postJson(EMBEDDINGS, { input: 'x', dimensions: 8 });
    expect(refused.status).toBe(400);
    expect(refused.body.error).toMatchObject({ param: 'dimensions' });
    const trained = await embedder({ hfOverrides: { matryoshka_dimensions: [8, 16] } });
    expect((await trained.postJson(EMBEDDINGS, { input: 'x', dimensions: 8 })).status).toBe(200);
    expect(trained.engine.poolingRequests[0]!.pooling.dimensions).toBe(8);
    expect((await trained.postJson(EMBEDDINGS, { input: 'x', dimensions: 9 })).status).toBe(400);
    const any = await embedder({ hfOverrides: { is_matryoshka: true } });
    expect((await any.postJson(EMBEDDINGS, { input: 'x', dimensions: 9 })).status).toBe(200);
    for (const dimensions of [0, -1, 10_000]) {
      expect((await any.postJson(EMBEDDINGS, { input: 'x', dimensions })).status).toBe(400);
    }
  });

  test('a conversation is written by the chat template', async () => {
    const server = await embedder();
    const { status } = await server.postJson(EMBEDDINGS, { messages });
    expect(status).toBe(200);
    const text = server.engine.tokenizer!.decode(promptsOf(server)[0]!, { skipSpecialTokens: false });
    expect(text).toContain('What is the capital of France?');
    expect(text).not.toContain('<|im_start|>assistant');
  });

  test('a text is cut on the side that is asked for, by default the right', async () => {
    const server = await embedder();
    const input = [1, 2, 3, 4, 5];
    await server.postJson(EMBEDDINGS, { input, truncate_prompt_tokens: 2 });
    await server.postJson(EMBEDDINGS, { input, truncate_prompt_tokens: 2, truncation_side: 'left' });
    await server.postJson(EMBEDDINGS, { input, truncate_prompt_tokens: -1 });
    expect(promptsOf(server)).toEqual([[1, 2], [4, 5], input]);
    expect((await server.postJson(EMBEDDINGS, { input, truncate_prompt_tokens: 10_000 })).status).toBe(400);
  });

  test('a prompt may fill the model, and no more', async () => {
    const server = await embedder({ maxModelLen: 16 });
    const ids = (n: number) => Array.from({ length: n }, () => 5);
    expect((await server.postJson(EMBEDDINGS, { input: ids(16) })).status).toBe(200);
    const tooLong = await server.postJson(EMBEDDINGS, { input: ids(17) });
    expect(tooLong.status).toBe(400);
    expect(tooLong.body.error.message).toContain('maximum context length is 16 tokens');
  });

  test.each([
    [{}, /input/],
    [{ input: [] }, /at least one/i],
    [{ input: '' }, /empty/],
    [{ input: [[]] }, /empty/],
    [{ input: [[1e9]] }, /out of vocabulary/],
    [{ input: 5 }, /input must be/],
    [{ input: Array.from({ length: 2049 }, () => 'a') }, /at most 2048/],
    [{ input: 'x', encoding_format: 'hex' }, /encoding_format/],
    [{ input: 'x', embed_dtype: 'fp8_e4m3' }, /embed_dtype/],
    [{ input: 'x', padding: 'max_length' }, /padding/],
    [{ input: 'x', normalize: true }, /use_activation/],
    [{ input: 'x', mm_processor_kwargs: {} }, /mm_processor_kwargs/],
    [{ input: 'x', cache_salt: '' }, /cache_salt/],
    [{ input: 'x', priority: 3 }, /priority/],
    [{ messages, add_generation_prompt: true, continue_final_message: true }, /Cannot set both/],
  ])('%j is refused', async (body, message) => {
    const server = await embedder();
    const answer = await server.postJson(EMBEDDINGS, body);
    expect(answer.status).toBe(400);
    expect(answer.body.error.message).toMatch(message);
    expect(server.engine.poolingRequests).toEqual([]);
  });

  test('an unknown model is 404', async () => {
    const { status } = await (await embedder()).postJson(EMBEDDINGS, { model: 'other', input: 'x' });
    expect(status).toBe(404);
  });

  test("priority, salt and data-parallel rank are the request's", async () => {
    const server = await embedder({ schedulingPolicy: 'priority', dataParallelSize: 2, cpuThreads: 2 });
    const headers = { 'X-data-parallel-rank': '1' };
    await server.postJson(EMBEDDINGS, { input: 'x', priority: -5, cache_salt: 'salt' }, headers);
    expect(server.engine.poolingRequests[0]).toMatchObject({ priority: -5, cacheSalt: 'salt', dataParallelRank: 1 });
  });

  test('a client that leaves frees what its requests hold', async () => {
    const server = await testServer({ flags: { runner: 'pooling' }, manual: true });
    const controller = new AbortController();
    const answer = server.post(EMBEDDINGS, { input: ['a', 'b', 'c'] }, { signal: controller.signal });
    while (server.engine.poolingRequests.length < 3) await new Promise((resolve) => setImmediate(resolve));
    controller.abort();
    expect((await answer).status).toBe(499);
    expect(server.engine.aborted).toHaveLength(3);
  });
});

describe('a request that comes to no output', () => {
  const endedBy = (...end: ConstructorParameters<typeof RequestEndedError>) =>
    testServer({ flags: { runner: 'pooling' }, pool: () => new RequestEndedError(...end) });

  test('is 503 when the engine has aborted it, else what it failed of', async () => {
    const aborted = await (await endedBy('r', 'abort', null)).postJson(EMBEDDINGS, { input: 'x' });
    expect([aborted.status, aborted.body.error.message]).toEqual([503, expect.stringContaining('put to sleep')]);
    const failure = { fault: 'server', message: 'It failed.' } as const;
    const failed = await (await endedBy('r', 'error', failure)).postJson(EMBEDDINGS, { input: 'x' });
    expect([failed.status, failed.body.error.message]).toEqual([500, 'It failed.']);
  });

  test('is 503 after --request-timeout, and the others of its body are aborted too', async () => {
    const server = await testServer({ flags: { runner: 'pooling', requestTimeout: 0.02 }, manual: true });
    const { status, body } = await server.postJson('/rerank', { query: 'x', documents: ['a', 'b'] });
    expect([status, body.error.message]).toEqual([503, expect.stringContaining('--request-timeout')]);
    expect(server.engine.aborted).toHaveLength(server.engine.poolingRequests.length);
  });
});

describe('which paths there are', () => {
  test('those of what the model does', async () => {
    const statuses = async (server: TestServer) => {
      const paths = [COMPLETIONS, EMBEDDINGS, '/pooling', '/classify', '/score', '/rerank'];
      const answers = await Promise.all(paths.map((path) => server.post(path, {})));
      return Object.fromEntries(answers.map(({ status }, i) => [paths[i]!, status]));
    };
    const [no, yes] = [404, 400];
    const all = { [COMPLETIONS]: no, [EMBEDDINGS]: no, '/pooling': yes, '/classify': no, '/score': no, '/rerank': no };
    expect(await statuses(await embedder())).toEqual({ ...all, [EMBEDDINGS]: yes, '/score': yes, '/rerank': yes });
    expect(await statuses(await classifier('bert_reranker'))).toEqual({
      ...all,
      '/classify': yes,
      '/score': yes,
      '/rerank': yes,
    });
    expect(await statuses(await classifier('bert_classifier'))).toEqual({ ...all, '/classify': yes });
    expect(await statuses(await testServer())).toEqual({ ...all, [COMPLETIONS]: yes, '/pooling': no });
  });
});

test('all of them want the key', async () => {
  const server = await embedder({ apiKey: ['secret'] });
  for (const path of [EMBEDDINGS, '/pooling', '/score', '/v1/score', '/rerank', '/v1/rerank', '/v2/rerank']) {
    expect((await server.post(path, {})).status, path).toBe(401);
    const { status } = await server.post(path, {}, { headers: { Authorization: 'Bearer secret' } });
    expect(status, path).toBe(400);
  }
});

describe('/score and /rerank', () => {
  const scoreOf = async (server: TestServer, body: object) => (await server.postJson('/score', body)).body;

  test('by the angle between embeddings, one with many or pair by pair', async () => {
    const server = await testServer({
      flags: { runner: 'pooling' },
      pool: ({ promptTokenIds }) => (promptTokenIds.length > 2 ? [1, 1] : [1, 0]),
    });
    const long = 'a text of many words';
    const { data, usage } = await scoreOf(server, { text_1: 'a', text_2: ['a', long] });
    expect(data[0]).toEqual({ index: 0, object: 'score', score: 1 });
    expect(data[1].score).toBeCloseTo(Math.SQRT1_2, 6);
    const [query, ...documents] = promptsOf(server);
    expect(usage.prompt_tokens).toBe(2 * query!.length + documents[0]!.length + documents[1]!.length);
    const pairs = await scoreOf(server, { queries: ['a', long], documents: [long, long] });
    expect(pairs.data[0].score).toBeCloseTo(Math.SQRT1_2, 6);
    expect(pairs.data[1].score).toBeCloseTo(1, 6);
  });

  test('by the one class of a cross encoder, both texts in one prompt', async () => {
    const server = await classifier('bert_reranker', () => [0.25]);
    const { data } = await scoreOf(server, { data_1: 'a', data_2: ['b', 'c'] });
    expect(data.map(({ score }: { score: number }) => score)).toEqual([0.25, 0.25]);
    expect(server.engine.poolingRequests.map(({ pooling }) => pooling)).toEqual([
      { task: 'classify', dimensions: null, useActivation: true, firstTypeOne: 1 },
      { task: 'classify', dimensions: null, useActivation: true, firstTypeOne: 1 },
    ]);
  });

  test('reranking gives the best first, and only top_n', async () => {
    const server = await classifier('bert_reranker', ({ promptTokenIds }) => [promptTokenIds.length]);
    const documents = ['a', 'a b c d', { text: 'a b' }];
    const { body } = await server.postJson('/v2/rerank', { query: 'q', documents, top_n: 2 });
    expect(body.results.map(({ index }: { index: number }) => index)).toEqual([1, 2]);
    expect(body.results[1].document).toEqual({ text: 'a b', multi_modal: null });
    expect(body.usage).toEqual({ prompt_tokens: body.usage.total_tokens, total_tokens: expect.any(Number) });
  });

  test('a query or document may be cut by itself', async () => {
    const server = await classifier('bert_reranker', () => [1]);
    const words = 'one two three four five six seven eight nine';
    await scoreOf(server, { text_1: words, text_2: words, max_tokens_per_query: 2, max_tokens_per_doc: 3 });
    expect(promptsOf(server)[0]).toHaveLength(5);
  });

  test.each([
    [{ text_1: ['a', 'b'], text_2: ['a'] }, /1:1, 1:N or N:N/],
    [{ text_1: [], text_2: ['a'] }, /At least one text/],
    [{ text_1: 'a' }, /Field required/],
    [{}, /Field required/],
    [{ text_1: 'a', text_2: [5] }, /text_2/],
    [{ text_1: 'a', text_2: 'b', max_tokens_per_doc: 64 }, /max_model_len/],
  ])('%j is refused', async (body, message) => {
    const server = await classifier('bert_reranker');
    const answer = await server.postJson('/score', body);
    expect(answer.status).toBe(400);
    expect(answer.body.error.message).toMatch(message);
  });
});

test('an adapter may have other classes than the model: a score needs one', async () => {
  const reranker = await classifier('bert_reranker', () => [0.25, 0.75]);
  const { status, body } = await reranker.postJson('/score', { text_1: 'a', text_2: 'b' });
  expect([status, body.error.message]).toEqual([400, expect.stringContaining('the adapter has 2')]);
  const server = await classifier('bert_classifier', () => [0.125, 0.25, 0.125, 0.5]);
  const answer = await server.postJson('/classify', { input: 'a' });
  expect(answer.body.data[0]).toEqual({ index: 0, label: null, probs: [0.125, 0.25, 0.125, 0.5], num_classes: 4 });
});

describe('/classify and /pooling', () => {
  test('the most probable class by its name', async () => {
    const server = await classifier('bert_classifier', () => [0.25, 0.5, 0.25]);
    const { body } = await server.postJson('/classify', { input: ['a', 'b'], use_activation: false });
    expect(body.id).toStartWith('classify-');
    expect(body.data[1]).toEqual({ index: 1, label: 'LABEL_1', probs: [0.25, 0.5, 0.25], num_classes: 3 });
    expect(server.engine.poolingRequests[0]!.pooling.useActivation).toBe(false);
  });

  test('/pooling does what the server is for, or the task that is named', async () => {
    const server = await embedder();
    const { body } = await server.postJson('/pooling', { input: 'a' });
    expect(body.data[0]).toMatchObject({ index: 0, object: 'pooling', data: expect.any(Array) });
    await server.postJson('/pooling', { input: 'a', task: 'token_embed' });
    expect(server.engine.poolingRequests.map(({ pooling }) => pooling.task)).toEqual(['embed', 'token_embed']);
    const refused = await server.postJson('/pooling', { input: 'a', task: 'classify' });
    expect(refused.status).toBe(400);
    expect(refused.body.error.message).toContain("Unsupported task: 'classify'");
    expect((await server.postJson('/pooling', { input: 'a', dimensions: 3 })).status).toBe(400);
    expect((await server.postJson('/pooling', { data: {} })).status).toBe(400);
  });
});

test('random bodies never give a 5xx', async () => {
  const servers = [await embedder(), await classifier('bert_reranker', () => [1])];
  const fields =
    'model input messages query documents text_1 text_2 queries items data_1 data_2 top_n task dimensions encoding_format embed_dtype endianness truncate_prompt_tokens truncation_side priority cache_salt use_activation padding add_special_tokens chat_template_kwargs max_tokens_per_doc request_id normalize __proto__';
  const value = fc.oneof(
    fc.constantFrom<unknown>('a', ['a', 'b'], [1, 2], [[1], [2]], messages, { text: 'x' }, -1, 2, 'float', 'left'),
    fc.jsonValue({ maxDepth: 3 }),
  );
  const body = fc.record({
    base: fc.constantFrom<object>(
      { input: 'a' },
      { query: 'a', documents: ['b', 'c'] },
      { text_1: 'a', text_2: 'b' },
      {},
    ),
    changes: fc.array(fc.tuple(fc.constantFrom(...fields.split(' ')), value), { maxLength: 4 }),
  });
  const path = fc.constantFrom(EMBEDDINGS, '/pooling', '/score', '/rerank', '/classify');
  const statuses = new Set<number>();
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...servers), path, body, async (server, at, { base, changes }) => {
      const { status } = await server.post(at, { ...base, ...Object.fromEntries(changes) });
      statuses.add(status);
      expect(status).toBeLessThan(500);
    }),
    { numRuns: 1500 },
  );
  expect(statuses).toContain(200);
  expect(statuses).toContain(400);
});

describe('/v2/embed', () => {
  const EMBED = '/v2/embed';
  const VECTOR = [1, -2, 0, 0.5, -1, -1, 3, -0.25];
  const cohere = () => testServer({ flags: { runner: 'pooling' }, pool: () => VECTOR });

  test("answers with Cohere's shape, in every type that is asked for", async () => {
    const server = await cohere();
    const { status, body } = await server.postJson(EMBED, {
      model: 'demo',
      texts: ['one', 'two and more'],
      embedding_types: ['float', 'binary', 'ubinary', 'base64'],
    });
    expect(status).toBe(200);
    const { float, binary, ubinary, base64 } = body.embeddings;
    expect(float).toEqual([VECTOR, VECTOR]);
    // 1 0 1 1 0 0 1 0
    expect(ubinary).toEqual([[178], [178]]);
    expect(binary).toEqual([[50], [50]]);
    expect([...new Float32Array(Uint8Array.from(Buffer.from(base64[1], 'base64')).buffer)]).toEqual(VECTOR);
    expect(body.id).toStartWith('embd-');
    expect(body.texts).toEqual(['one', 'two and more']);
    expect(body.response_type).toBe('embeddings_by_type');
    const tokens = promptsOf(server).flat().length;
    expect(body.meta).toEqual({
      api_version: { version: '2' },
      billed_units: { input_tokens: tokens, image_tokens: 0 },
    });
    expect(Object.keys((await server.postJson(EMBED, { texts: ['x'] })).body.embeddings)).toEqual(['float']);
  });

  test('texts are cut at their end or beginning, or refused', async () => {
    const server = await cohere();
    const texts = ['one two three four five six'];
    const [whole] = await promptsOfBody(server, { texts, truncate: 'NONE' });
    expect(await promptsOfBody(server, { texts, max_tokens: 3 })).toEqual([whole!.slice(0, 3)]);
    expect(await promptsOfBody(server, { texts, max_tokens: 3, truncate: 'START' })).toEqual([whole!.slice(-3)]);
    const refused = await server.postJson(EMBED, { texts, max_tokens: 3, truncate: 'NONE' });
    expect([refused.status, refused.body.error.param]).toEqual([400, 'max_tokens']);
    const long = ['owl '.repeat(10_000)];
    expect((await server.postJson(EMBED, { texts: long })).status).toBe(200);
    expect((await server.postJson(EMBED, { texts: long, truncate: 'NONE' })).status).toBe(400);
  });

  test('parts of a message are a conversation; what a text is for is told where the model knows it', async () => {
    const server = await testServer({
      flags: { runner: 'pooling', hfOverrides: { task_instructions: { query: 'Find: ' } } },
      pool: () => VECTOR,
    });
    const [plain] = await promptsOfBody(server, { texts: ['an owl'] });
    const inputs = [{ content: [{ type: 'text', text: 'an owl' }] }];
    const [message] = await promptsOfBody(server, { inputs });
    const [told] = await promptsOfBody(server, { inputs, input_type: 'query' });
    expect(message!.length).toBeGreaterThan(plain!.length);
    expect(told!.length).toBeGreaterThan(message!.length);
    expect(await promptsOfBody(server, { texts: ['an owl'], input_type: 'query' })).toEqual([told!]);
    const { body } = await server.postJson(EMBED, { texts: ['x'], input_type: 'clustering' });
    expect(body.error.message).toContain('Supported values: query');
    const unknown = await (await cohere()).postJson(EMBED, { texts: ['x'], input_type: 'query' });
    expect([unknown.status, unknown.body.error.param]).toEqual([400, 'input_type']);
  });

  test.each([
    [{}, 'texts'],
    [{ texts: [] }, 'texts'],
    [{ texts: ['x'], inputs: [{ content: [] }] }, 'texts'],
    [{ images: ['data:image/png;base64,AA=='] }, 'images'],
    [{ inputs: [{ content: [{ type: 'image_url', image_url: { url: 'x' } }] }] }, 'inputs'],
    [{ inputs: [{ content: [{ type: 'text' }] }] }, 'inputs'],
    [{ texts: ['x'], output_dimension: 4 }, 'dimensions'],
    [{ texts: ['x'], embedding_types: ['int8'] }, 'body.embedding_types.0'],
    [{ texts: new Array(2049).fill('x') }, 'texts'],
  ])('%# is refused by name', async (given, param) => {
    const { status, body } = await (await cohere()).postJson(EMBED, given);
    expect(status).toBe(400);
    expect(`${body.error.param} ${body.error.message}`).toContain(param);
  });

  test('bits need whole bytes', async () => {
    const server = await testServer({ flags: { runner: 'pooling' }, pool: () => [1, 2, 3] });
    const { status, body } = await server.postJson(EMBED, { texts: ['x'], embedding_types: ['binary'] });
    expect([status, body.error.param]).toEqual([400, 'embedding_types']);
  });

  async function promptsOfBody(server: TestServer, given: object): Promise<number[][]> {
    const before = server.engine.poolingRequests.length;
    const { status, body } = await server.postJson(EMBED, given);
    if (status !== 200) throw new Error(JSON.stringify(body));
    return promptsOf(server).slice(before);
  }
});

test('conversations are embedded one by one or several at once, in `messages` or in `input`', async () => {
  const server = await embedder();
  const [one, two] = ['hello', 'good day'].map((content) => [{ role: 'user', content }]);
  for (const body of [{ messages: one }, { messages: [one, two] }, { input: two }, { input: [two, one] }]) {
    expect((await server.postJson(EMBEDDINGS, body)).status).toBe(200);
  }
  const [first, , second] = promptsOf(server);
  expect(promptsOf(server)).toEqual([first!, first!, second!, second!, second!, first!]);
  const broken = await server.postJson(EMBEDDINGS, { messages: [one, [{ role: 'user', content: 5 }]] });
  expect(broken.status).toBe(400);
});
