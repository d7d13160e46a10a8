import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import Ajv from 'ajv';
import { type BaoProcess, type CompletionBody, complete, inOneStep, post, startBao } from './bao-process.ts';

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
      ...['--generation-config', 'vllm', '--data-parallel-size', '2', '--cpu-threads', '2', '--api-server-count', '2'],
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
    ...['--max-num-seqs', '8', '--no-enable-prefix-caching', '--server-dev-mode'],
  ]);
  try {
    const list = {
      type: 'array',
      minItems: 12,
      maxItems: 12,
      items: { type: 'integer', minimum: 1000, maximum: 9999 },
    };
    const answers = await inOneStep(
      server,
      Array.from({ length: 8 }, (_, i) => () => complete(server, request(list, i))),
    );
    for (const answer of answers) expectValid(list, answer);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    const [, preemptions] = metrics.match(/^vllm:num_preemptions_total\{.*\} (\S+)/m)!;
    expect(Number(preemptions)).toBeGreaterThan(0);
  } finally {
    await server.stop();
  }
});

describe('XGrammar', () => {
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao([
      ...['demo', '--generation-config', 'vllm', '--structured-outputs-config.backend', 'xgrammar'],
      ...['--enable-auto-tool-choice', '--tool-call-parser', 'hermes', '--seed', '7'],
    ]);
  });
  afterAll(async () => {
    expect(await server.stop()).toBe(0);
  });

  const ask = (structured_outputs: object, extra: object = {}) =>
    complete(server, {
      ...{ prompt: 'Answer:', temperature: 1.3, seed: 1, max_tokens: 150 },
      structured_outputs,
      ...extra,
    });

  test('JSON, regular expressions, choices and EBNF, in one batch with requests that have none', async () => {
    const ebnf = 'root ::= step+\nstep ::= ("left" | "right") " "';
    const closed = { json: CITY, disable_any_whitespace: true };
    const texts = async (fields: object, extra?: object) => (await ask(fields, extra)).choices.map(({ text }) => text);
    const [json, regex, choice, steps, plain] = await Promise.all([
      texts(closed, { n: 3 }),
      texts({ regex: '[ab]{3,9}c' }),
      texts({ choice: ['north', 'south'] }, { ignore_eos: true, min_tokens: 20 }),
      texts({ grammar: ebnf }, { max_tokens: 9 }),
      complete(server, { prompt: 'Once', max_tokens: 30, temperature: 0 }),
    ]);
    // Its numbers are not held to a range.
    const loose = { ...CITY, properties: { city: { type: 'string', maxLength: 10 }, people: { type: 'integer' } } };
    for (const text of json) expect(ajv.validate(loose, JSON.parse(text)), text).toBe(true);
    expect(regex[0]).toMatch(/^[ab]{3,9}c$/);
    expect(choice[0]).toMatch(/^(north|south)$/);
    expect(steps[0]!.trim()).toMatch(/^(left|right)( (left|right))*( [a-z]*)?$/);
    expect(plain.choices[0]!.text).not.toBe('');
  });

  test('more grammars at once than there are Workers: all have their turn', async () => {
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) => ask({ regex: `${i}[ab]{2,20}${i}` }, { seed: i })),
    );
    answers.forEach(({ choices }, i) => {
      expect(choices[0]!.text).toMatch(new RegExp(`^${i}[ab]{2,20}${i}$`));
    });
  });

  test('a forced call has its frame', async () => {
    const parameters = { type: 'object', properties: { city: { type: 'string', maxLength: 9 } }, required: ['city'] };
    const { status, body } = await post(`${server.url}/v1/chat/completions`, {
      messages: [{ role: 'user', content: 'What is the weather in Paris?' }],
      tools: [{ type: 'function', function: { name: 'get_weather', parameters } }],
      ...{ tool_choice: { type: 'function', function: { name: 'get_weather' } }, max_tokens: 100 },
    });
    expect(status, JSON.stringify(body)).toBe(200);
    const { message } = (body as { choices: { message: { tool_calls: { function: { name: string } }[] } }[] })
      .choices[0]!;
    expect(message.tool_calls.map((call) => call.function.name)).toEqual(['get_weather']);
  });

  test('bad grammars, strict schemas, endless compiles are 400s, and the next request is served', async () => {
    const refused = async (body: object) => {
      const answer = await post(`${server.url}/v1/completions`, { prompt: 'A', max_tokens: 20, ...body });
      expect(answer.status, JSON.stringify(answer.body)).toBe(400);
      return (answer.body as { error: { message: string } }).error.message;
    };
    expect(await refused({ structured_outputs: { grammar: 'root ::= nowhere' } })).toContain(
      '"nowhere" is not defined',
    );
    expect(await refused({ structured_outputs: { grammar: 'start: "a"' } })).toContain('Lark needs llguidance');
    const schema = { type: 'array', items: { type: 'integer' }, uniqueItems: true };
    const strict = { type: 'json_schema', json_schema: { name: 'x', schema, strict: true } };
    expect(await refused({ response_format: strict })).toContain('"uniqueItems"');
    expect(await refused({ structured_outputs: { regex: '([a-z]{1,400}){1,400}' } })).toContain('not compiled within');
    expect((await ask({ choice: ['on'] })).choices[0]!.text).toBe('on');
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    await ask({ json: { ...schema, maxItems: 3 } });
    expect(server.stderr()).toContain('XGrammar does not keep to "uniqueItems"');
  });
});
