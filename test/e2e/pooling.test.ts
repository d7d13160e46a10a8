import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import OpenAI from 'openai';
import { schemaErrors } from '../server/openai-schema.ts';
import { type BaoProcess, post, startBao } from './bao-process.ts';

const GOLDENS = join(import.meta.dir, '../goldens');
const golden = (name: string) => JSON.parse(readFileSync(join(GOLDENS, name, 'golden.json'), 'utf8'));

interface Embeddings {
  data: { index: number; embedding: number[] }[];
  usage: { prompt_tokens: number; total_tokens: number };
}

async function embed(server: BaoProcess, body: Record<string, unknown>): Promise<Embeddings> {
  const { status, body: answer } = await post(`${server.url}/v1/embeddings`, body);
  if (status !== 200) throw new Error(`status ${status}: ${JSON.stringify(answer)}`);
  return answer as Embeddings;
}

function maxDifference(a: readonly number[], b: readonly number[]): number {
  expect(a.length).toBe(b.length);
  return a.reduce((max, value, i) => Math.max(max, Math.abs(value - b[i]!)), 0);
}

describe('a Sentence Transformers model', () => {
  const { texts } = golden('sentence_bert') as { texts: { text: string; ids: number[]; embedding: number[] }[] };
  const short = texts.slice(0, -1);
  let server: BaoProcess;
  let client: OpenAI;
  beforeAll(async () => {
    const flags = ['--served-model-name', 'st', '--dtype', 'float32'];
    server = await startBao([join(GOLDENS, 'sentence_bert'), ...flags]);
    client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
  });
  afterAll(() => server.stop());

  test("the OpenAI SDK gets sentence-transformers' embeddings, as floats and in its default base64", async () => {
    for (const format of ['float', undefined] as const) {
      const input = short.map(({ text }) => text);
      const { data, usage } = await client.embeddings.create({ model: 'st', input, encoding_format: format });
      short.forEach(({ embedding }, i) => {
        expect(maxDifference(data[i]!.embedding, embedding)).toBeLessThan(1e-3);
      });
      expect(usage.prompt_tokens).toBe(short.reduce((sum, { ids }) => sum + ids.length, 0));
    }
  });

  test("the answer is OpenAI's", async () => {
    const answer = await embed(server, { model: 'st', input: 'an owl' });
    expect(schemaErrors('CreateEmbeddingResponse', answer)).toBe('');
  });

  test('a text that is too long is refused, or cut as it was trained', async () => {
    const { text, embedding, ids } = texts.at(-1)!;
    const refused = await post(`${server.url}/v1/embeddings`, { input: text });
    expect(refused.status).toBe(400);
    const cut = await embed(server, { input: text, truncate_prompt_tokens: -1 });
    expect(maxDifference(cut.data[0]!.embedding, embedding)).toBeLessThan(1e-3);
    expect(cut.usage.prompt_tokens).toBe(ids.length);
  });

  test('ids give what their text gives', async () => {
    const { ids, embedding } = texts[0]!;
    const answer = await embed(server, { input: [ids, ids] });
    expect(answer.data).toHaveLength(2);
    for (const { embedding: actual } of answer.data) expect(maxDifference(actual, embedding)).toBeLessThan(1e-3);
  });

  test('what it does not do is not there', async () => {
    for (const path of ['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/messages', '/classify']) {
      expect((await post(server.url + path, { input: 'x' })).status, path).toBe(404);
    }
    expect((await post(`${server.url}/v1/embeddings`, { input: 'x', dimensions: 8 })).status).toBe(400);
  });
});

describe('a Sentence Transformers model with dense layers, whose texts are made lower case', () => {
  const { texts } = golden('sentence_dense') as {
    texts: { text: string; ids: number[]; embedding: number[]; query: number[] }[];
  };
  const input = texts.map(({ text }) => text);
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao([join(GOLDENS, 'sentence_dense'), '--dtype', 'float32']);
  });
  afterAll(() => server.stop());

  test("embeddings are sentence-transformers'", async () => {
    const { data, usage } = await embed(server, { input });
    texts.forEach(({ embedding }, i) => {
      expect(maxDifference(data[i]!.embedding, embedding)).toBeLessThan(1e-4);
    });
    expect(usage.prompt_tokens).toBe(texts.reduce((sum, { ids }) => sum + ids.length, 0));
  });

  test("what a text is for goes before it as the model's files say", async () => {
    const { status, body } = await post(`${server.url}/v2/embed`, { texts: input, input_type: 'query' });
    expect(status).toBe(200);
    const { embeddings } = body as { embeddings: { float: number[][] } };
    texts.forEach(({ query }, i) => {
      expect(maxDifference(embeddings.float[i]!, query)).toBeLessThan(1e-4);
    });
  });

  test('tokens go through the dense layers too', async () => {
    const { body } = await post(`${server.url}/pooling`, { input: 'an owl', task: 'token_embed' });
    const [{ data }] = (body as { data: [{ data: number[][] }] }).data;
    expect(data.map((vector) => vector.length)).toEqual(new Array(4).fill(20));
    for (const vector of data) expect(Math.hypot(...vector)).toBeCloseTo(1, 4);
  });
});

describe('a cross encoder', () => {
  const { pairs, truncated } = golden('bert_reranker') as {
    pairs: { query: string; document: string; ids: number[]; score: number }[];
    truncated: { query: string; document: string; truncate: number; ids: number[]; score: number }[];
  };
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao([join(GOLDENS, 'bert_reranker'), '--dtype', 'float32']);
  });
  afterAll(() => server.stop());

  test("scores pairs as transformers does, each text's type told", async () => {
    const { status, body } = await post(`${server.url}/v1/score`, {
      queries: pairs.map(({ query }) => query),
      documents: pairs.map(({ document }) => document),
    });
    expect(status).toBe(200);
    const { data, usage } = body as { data: { score: number }[]; usage: { prompt_tokens: number } };
    expect(
      maxDifference(
        data.map(({ score }) => score),
        pairs.map(({ score }) => score),
      ),
    ).toBeLessThan(1e-3);
    expect(usage.prompt_tokens).toBe(pairs.reduce((sum, { ids }) => sum + ids.length, 0));
  });

  test('cuts the longer text first', async () => {
    for (const { query, document, truncate, score, ids } of truncated) {
      const { body } = await post(`${server.url}/score`, {
        text_1: query,
        text_2: document,
        truncate_prompt_tokens: truncate,
      });
      const { data, usage } = body as { data: { score: number }[]; usage: { prompt_tokens: number } };
      expect(usage.prompt_tokens).toBe(ids.length);
      expect(Math.abs(data[0]!.score - score)).toBeLessThan(1e-3);
    }
  });

  test('reranks under all its names', async () => {
    const documents = pairs.map(({ document }) => document);
    for (const path of ['/rerank', '/v1/rerank', '/v2/rerank']) {
      const { body } = await post(server.url + path, { query: 'an owl', documents, top_n: 3 });
      const { results } = body as { results: { index: number; relevance_score: number; document: { text: string } }[] };
      expect(results).toHaveLength(3);
      const scores = results.map(({ relevance_score }) => relevance_score);
      expect(scores).toEqual([...scores].sort((a, b) => b - a));
      for (const { index, document } of results) expect(document.text).toBe(documents[index]!);
    }
  });

  test('classifies, and has no embeddings', async () => {
    const { body } = await post(`${server.url}/classify`, { input: 'an owl' });
    expect((body as { data: unknown[] }).data[0]).toMatchObject({ index: 0, label: 'LABEL_0', num_classes: 1 });
    expect((await post(`${server.url}/v1/embeddings`, { input: 'an owl' })).status).toBe(404);
  });
});

describe('the demo model, pooled by two cores behind two API servers', () => {
  const flags = ['demo', '--runner', 'pooling', '--max-num-batched-tokens', '64', '--max-num-seqs', '16'];
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao([...flags, '--data-parallel-size', '2', '--cpu-threads', '2', '--api-server-count', '2']);
  });
  afterAll(() => server.stop());

  const text = (i: number) => `The owl number ${i} has ${'a feather and '.repeat(i % 7)}a name.`;

  test('an embedding is the same alone, in a batch, in chunks and from the prefix cache', async () => {
    const input = Array.from({ length: 40 }, (_, i) => text(i));
    const long = 'Once upon a time there was an owl. '.repeat(20);
    const [batch, [first, again]] = await Promise.all([
      embed(server, { input }),
      Promise.all([embed(server, { input: long }), embed(server, { input: long })]),
    ]);
    const alone = await Promise.all(input.map((each) => embed(server, { input: each })));
    expect(batch.data.map(({ embedding }) => embedding)).toEqual(alone.map(({ data }) => data[0]!.embedding));
    expect(again!.data[0]!.embedding).toEqual(first!.data[0]!.embedding);
  });

  test('an embedding of each token ends with that of the sequence', async () => {
    const input = text(5).repeat(5);
    const { body } = await post(`${server.url}/pooling`, { input, task: 'token_embed' });
    const { data, usage } = body as { data: { data: number[][] }[]; usage: { prompt_tokens: number } };
    const whole = await embed(server, { input });
    expect(usage.prompt_tokens).toBeGreaterThan(64);
    expect(data[0]!.data).toHaveLength(usage.prompt_tokens);
    expect(data[0]!.data.at(-1)).toEqual(whole.data[0]!.embedding);
  });

  test('requests of all API servers are counted, a dropped one too, and every one comes to its end', async () => {
    const abort = new AbortController();
    const dropped = fetch(`${server.url}/v1/embeddings`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ input: Array.from({ length: 1000 }, (_, i) => text(i).repeat(20)) }),
      signal: abort.signal,
    }).catch(() => null);
    const metrics = async () => (await fetch(`${server.url}/metrics`, { keepalive: false })).text();
    const sum = (page: string, name: string) =>
      [...page.matchAll(new RegExp(`^${name}\\{.*\\} (\\S+)`, 'gm'))].reduce(
        (total, [, value]) => total + Number(value),
        0,
      );
    while (sum(await metrics(), 'vllm:num_requests_running') === 0) await Bun.sleep(5);
    abort.abort();
    await dropped;
    for (;;) {
      const page = await metrics();
      const open = sum(page, 'vllm:num_requests_running') + sum(page, 'vllm:num_requests_waiting');
      const aborted = sum(page, 'vllm:request_success_total');
      if (open === 0 && aborted > 0) break;
      await Bun.sleep(20);
    }
    const page = await metrics();
    expect(page).toMatch(/request_success_total\{[^}]*finished_reason="abort"[^}]*\} [1-9]/);
    expect(sum(page, 'vllm:generation_tokens_total')).toBe(0);
    expect(sum(page, 'vllm:prompt_tokens_total')).toBeGreaterThan(100);
  });
});
