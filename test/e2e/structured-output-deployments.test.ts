import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import Ajv from 'ajv';
import { type BaoProcess, type CompletionBody, complete, post, startBao } from './bao-process.ts';

/** Grammars under other servers than the plain one: several threads, little memory, a model that thinks first. */
const ajv = new Ajv({ strict: false });
const CITY = {
  type: 'object',
  properties: { city: { type: 'string', maxLength: 10 }, people: { type: 'integer', minimum: 0, maximum: 99 } },
  required: ['city', 'people'],
  additionalProperties: false,
};

function expectValid(schema: object, { choices }: CompletionBody): void {
  for (const { text, finish_reason: reason } of choices) {
    expect(reason, text).toBe('stop');
    expect(ajv.validate(schema, JSON.parse(text)), text).toBe(true);
  }
}

/** `</think>` */
const END_OF_THINKING = 2043;

/** A schema for each number, so that each is compiled by whoever gets it. */
const numbered = (i: number) => ({ ...CITY, properties: { ...CITY.properties, [`extra${i}`]: { enum: [i] } } });

const request = (json: object, seed: number) => ({
  prompt: `A city, number ${seed}, as JSON:`,
  temperature: 1.3,
  seed,
  max_tokens: 200,
  structured_outputs: { json, disable_any_whitespace: true },
});

describe('two cores, two API servers, a reasoning parser', () => {
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao([
      'demo',
      ...['--generation-config', 'vllm', '--data-parallel-size', '2', '--api-server-count', '2'],
      ...['--reasoning-parser', 'qwen3'],
    ]);
  });
  afterAll(() => server.stop());

  test('every thread finds every grammar', async () => {
    const schemas = Array.from({ length: 12 }, (_, i) => numbered(i));
    const answers = await Promise.all(
      Array.from({ length: 24 }, (_, i) => complete(server, request(schemas[i % 12]!, i))),
    );
    answers.forEach((answer, i) => {
      expectValid(schemas[i % 12]!, answer);
    });
  });

  const chat = async (extra: object) => {
    const { status, body } = await post(`${server.url}/v1/chat/completions`, {
      messages: [{ role: 'user', content: 'Name a city.' }],
      max_tokens: 200,
      temperature: 1,
      seed: 3,
      n: 6,
      structured_outputs: { json: CITY, disable_any_whitespace: true },
      ...extra,
    });
    expect(status, JSON.stringify(body)).toBe(200);
    return (body as { choices: { message: { reasoning?: string; content: string | null } }[] }).choices.map(
      ({ message }) => message,
    );
  };

  test('the constraint begins behind the thinking', async () => {
    // The demo model doesn't think by itself: this makes the end of the thinking likely, soon but not at once.
    const answers = (await chat({ logit_bias: { [END_OF_THINKING]: 11 } })).filter(({ content }) => content !== null);
    for (const { content } of answers) expect(ajv.validate(CITY, JSON.parse(content!)), content!).toBe(true);
    const thoughts = answers.map(({ reasoning }) => reasoning ?? '').filter((text) => text !== '');
    expect(thoughts).not.toBeEmpty();
    for (const text of thoughts) expect(text).not.toStartWith('{');
  });

  test('without thinking it begins at once', async () => {
    for (const { reasoning, content } of await chat({ chat_template_kwargs: { enable_thinking: false } })) {
      expect(reasoning ?? '').toBe('');
      expect(ajv.validate(CITY, JSON.parse(content!)), content!).toBe(true);
    }
  });
});

test('a grammar goes on where a preemption stopped it', async () => {
  const server = await startBao([
    'demo',
    ...['--generation-config', 'vllm', '--num-gpu-blocks-override', '24', '--max-model-len', '256'],
    ...['--max-num-seqs', '8', '--no-enable-prefix-caching'],
  ]);
  try {
    const list = {
      type: 'array',
      minItems: 12,
      maxItems: 12,
      items: { type: 'integer', minimum: 1000, maximum: 9999 },
    };
    const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => complete(server, request(list, i))));
    for (const answer of answers) expectValid(list, answer);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    const [, preemptions] = metrics.match(/^vllm:num_preemptions_total\{.*\} (\S+)/m)!;
    expect(Number(preemptions)).toBeGreaterThan(0);
  } finally {
    await server.stop();
  }
});
