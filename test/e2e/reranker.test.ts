import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type BaoProcess, post, startBao } from './bao-process.ts';

const FOLDER = join(import.meta.dir, '../goldens/qwen3_reranker');

interface Pair {
  query: string;
  document: string;
  /** Of the prompt that the score template makes. */
  ids: number[];
  /** Probability of "yes" beside "no" after that prompt. */
  score: number;
  /** The same with another instruction, and without a template. */
  instructed: number;
  concatenated: number;
  /** Of the golden's classes, without a template. */
  logits: number[];
}

const { classes, pairs } = JSON.parse(readFileSync(join(FOLDER, 'golden.json'), 'utf8')) as {
  classes: string[];
  pairs: Pair[];
};

const overrides = (members: object) => [
  '--hf-overrides',
  JSON.stringify({ architectures: ['Qwen3ForSequenceClassification'], ...members }),
  ...['--dtype', 'float32'],
];
const ofPairs = { queries: pairs.map(({ query }) => query), documents: pairs.map(({ document }) => document) };

interface Scores {
  data: { score: number }[];
  usage: { prompt_tokens: number };
}

async function scores(server: BaoProcess, body: object = {}): Promise<{ values: number[]; tokens: number }> {
  const { status, body: answer } = await post(`${server.url}/score`, { ...ofPairs, ...body });
  if (status !== 200) throw new Error(JSON.stringify(answer));
  const { data, usage } = answer as Scores;
  return { values: data.map(({ score }) => score), tokens: usage.prompt_tokens };
}

function expectNear(actual: readonly number[], expected: readonly number[]): void {
  expect(actual).toHaveLength(expected.length);
  actual.forEach((value, i) => {
    expect(Math.abs(value - expected[i]!)).toBeLessThan(1e-4);
  });
}

describe("a generating model as a reranker by its answer's tokens, with a score template", () => {
  let server: BaoProcess;
  beforeAll(async () => {
    const flags = overrides({ classifier_from_token: ['no', 'yes'], is_original_qwen3_reranker: true });
    server = await startBao([FOLDER, ...flags, '--chat-template', join(FOLDER, 'score.jinja')]);
  });
  afterAll(() => server.stop());

  test('a score is the probability of yes after the prompt that the template makes', async () => {
    const { values, tokens } = await scores(server);
    expectNear(
      values,
      pairs.map(({ score }) => score),
    );
    expect(tokens).toBe(pairs.reduce((sum, { ids }) => sum + ids.length, 0));
  });

  test('a request may set the variables of the template, but not the template', async () => {
    const expected = pairs.map(({ instructed }) => instructed);
    expectNear((await scores(server, { instruction: 'yes or no' })).values, expected);
    const kwargs = { chat_template_kwargs: { instruction: 'yes or no' } };
    expectNear((await scores(server, { ...kwargs, instruction: 'something else' })).values, expected);
    const { status, body } = await post(`${server.url}/score`, {
      ...ofPairs,
      chat_template_kwargs: { chat_template: '{{ 1 }}' },
    });
    expect([status, JSON.stringify(body)]).toEqual([400, expect.stringContaining('chat_template')]);
  });

  test('texts are cut before they come into the template, the prompt behind it', async () => {
    const [{ query, document }] = pairs as [Pair];
    const long = { queries: [query], documents: [`${document}, ${'and so on '.repeat(8)}`] };
    const whole = (await scores(server, long)).tokens;
    const cut = await scores(server, { ...long, max_tokens_per_doc: 9 });
    expect(cut.tokens).toBeLessThan(whole - 20);
    expect((await scores(server, { ...long, truncate_prompt_tokens: 20 })).tokens).toBe(20);
  });

  test('reranks, best first', async () => {
    const { query } = pairs[1]!;
    const documents = [pairs[1]!.document, pairs[2]!.document];
    const { body } = await post(`${server.url}/v1/rerank`, { query, documents });
    const { results } = body as { results: { index: number; relevance_score: number }[] };
    const expected = [pairs[1]!.score, pairs[2]!.score];
    expectNear(
      results.map(({ relevance_score }) => relevance_score),
      [...expected].sort((a, b) => b - a),
    );
    expect(results[0]!.index).toBe(expected[0]! > expected[1]! ? 0 : 1);
  });
});

describe('the same without a template', () => {
  test('the texts stand one behind the other, with from_2_way_softmax', async () => {
    const flags = overrides({ classifier_from_token: ['no', 'yes'], method: 'from_2_way_softmax' });
    const server = await startBao([FOLDER, ...flags]);
    try {
      expectNear(
        (await scores(server)).values,
        pairs.map(({ concatenated }) => concatenated),
      );
      const { status, body } = await post(`${server.url}/score`, { ...ofPairs, instruction: 'yes or no' });
      expect([status, JSON.stringify(body)]).toEqual([400, expect.stringContaining('instruction')]);
    } finally {
      await server.stop();
    }
  });

  test('a score of one token, with no_post_processing', async () => {
    const flags = overrides({ classifier_from_token: ['yes'], method: 'no_post_processing' });
    const server = await startBao([FOLDER, ...flags]);
    try {
      expectNear(
        (await scores(server)).values,
        pairs.map(({ logits }) => 1 / (1 + Math.exp(-logits[classes.indexOf('yes')]!))),
      );
    } finally {
      await server.stop();
    }
  });

  test('a class for each token, with no_post_processing', async () => {
    const flags = overrides({ classifier_from_token: classes, method: 'no_post_processing' });
    const server = await startBao([FOLDER, ...flags]);
    try {
      const input = pairs.map(({ query, document }) => query + document);
      const { body } = await post(`${server.url}/classify`, { input, use_activation: false });
      const { data } = body as { data: { probs: number[] }[] };
      pairs.forEach(({ logits }, i) => {
        data[i]!.probs.forEach((value, j) => {
          expect(Math.abs(value - logits[j]!)).toBeLessThan(1e-3);
        });
      });
      // Several classes are no score.
      expect((await post(`${server.url}/score`, ofPairs)).status).toBe(404);
    } finally {
      await server.stop();
    }
  });
});
