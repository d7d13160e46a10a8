import { afterAll, beforeAll, expect, test } from 'bun:test';
import Ajv2020 from 'ajv/dist/2020';
import fc from 'fast-check';
import config from '../../models/demo/config.json';
import tokenizer from '../../models/demo/tokenizer.json';
import { endlessGrammars } from '../fixtures/endless-grammars.ts';
import { type BaoProcess, type CompletionBody, complete, post, startBao } from './bao-process.ts';

let server: BaoProcess;
beforeAll(async () => {
  server = await startBao(['demo', '--generation-config', 'vllm']);
});
afterAll(() => server.stop());

const ajv = new Ajv2020({ strict: false, formats: { date: /^\d{4}-\d\d-\d\d$/ } });
const EOS = [config.eos_token_id].flat();
const PERSON = {
  type: 'object',
  properties: { name: { type: 'string', maxLength: 12 }, age: { type: 'integer', minimum: 0, maximum: 150 } },
  required: ['name', 'age'],
  additionalProperties: false,
};
const person = (extra: Record<string, unknown>) => ({
  prompt: 'Kate, aged 30, is a pilot from Oslo. As JSON:',
  max_tokens: 100,
  structured_outputs: { json: PERSON },
  ...extra,
});

function expectValid(schema: object, choices: CompletionBody['choices']): void {
  for (const { text, finish_reason: reason } of choices) {
    expect(reason, text).toBe('stop');
    expect(ajv.validate(schema, JSON.parse(text)), text).toBe(true);
  }
}

test.each([
  { temperature: 0 },
  { temperature: 0, ignore_eos: true },
  { temperature: 1, seed: 1, n: 4 },
  { temperature: 2, seed: 2, n: 4 },
  { temperature: 2, seed: 3, min_tokens: 60 },
  { temperature: 1, seed: 4, logprobs: 2, logit_bias: { 300: 50 } },
])('valid with %j', async (extra) => {
  expectValid(PERSON, (await complete(server, person(extra))).choices);
});

/** With bounds on all that could go on for longer than max_tokens. */
const TEXT = { type: 'string', maxLength: 8 };
const SCHEMAS: Record<string, object> = {
  boolean: { type: 'boolean' },
  enum: { enum: ['red', 2, null, { a: [1] }] },
  const: { const: { x: 'é "q" \\' } },
  range: { type: 'integer', minimum: -5, maximum: 1200, multipleOf: 5 },
  number: { type: 'number', enum: [0.5, -2.25, 1e3] },
  pattern: { type: 'string', pattern: '^[A-Z]{2}-[0-9]{1,4}$' },
  date: { type: 'string', format: 'date' },
  array: { type: 'array', items: { type: 'boolean' }, minItems: 2, maxItems: 5 },
  tuple: { type: 'array', prefixItems: [TEXT, { type: 'boolean' }], items: false, minItems: 2 },
  optional: { type: 'object', properties: { a: TEXT, b: { type: 'null' }, c: TEXT }, additionalProperties: false },
  union: { anyOf: [{ type: 'object', properties: { k: TEXT }, required: ['k'], additionalProperties: false }, TEXT] },
  recursive: {
    $ref: '#/$defs/tree',
    $defs: {
      tree: {
        type: 'object',
        properties: {
          name: { enum: ['a', 'b'] },
          kids: { type: 'array', items: { $ref: '#/$defs/leaf' }, maxItems: 2 },
        },
        required: ['name', 'kids'],
        additionalProperties: false,
      },
      leaf: { anyOf: [{ type: 'null' }, { enum: ['leaf'] }] },
    },
  },
};

test.each(Object.entries(SCHEMAS))('%s: every output is valid at every temperature', async (_, json) => {
  const answers = [0, 0.7, 1.5, 2].flatMap((temperature, seed) =>
    [true, false].map((onOneLine) =>
      complete(server, {
        prompt: 'As JSON:',
        max_tokens: onOneLine ? 120 : 700,
        n: temperature === 0 ? 1 : 4,
        temperature,
        seed,
        structured_outputs: { json, disable_any_whitespace: onOneLine },
      }),
    ),
  );
  for (const { choices } of await Promise.all(answers)) expectValid(json, choices);
});

const NUMBER_TAG = {
  begin: '<n>',
  content: { type: 'json_schema', json_schema: { type: 'integer', maximum: 99, minimum: 0 } },
  end: '</n>',
};
const PARAMETERS = {
  type: 'object',
  properties: { n: { enum: [1, 22] } },
  required: ['n'],
  additionalProperties: false,
};

/** Tokens that are nothing but white space, as byte-level vocabularies write it. */
const SPACES = Object.entries(tokenizer.model.vocab).flatMap(([token, id]) => (/^[ĠĊĉč]+$/.test(token) ? [id] : []));
const NO_SPACE = Object.fromEntries(SPACES.map((id) => [id, -100]));

test.each(Object.entries({ ...SCHEMAS, parameters: PARAMETERS }))(
  '%s: a model that writes white space wherever it may ends its JSON nevertheless',
  async (_, json) => {
    const { choices } = await complete(server, {
      prompt: 'As JSON:',
      max_tokens: 900,
      temperature: 0,
      logit_bias: Object.fromEntries(SPACES.map((id) => [id, 100])),
      structured_outputs: { json },
    });
    expectValid(json, choices);
  },
);

/** A format of structural tags, and what all its outputs match. */
const FORMATS: [object, RegExp][] = [
  [{ type: 'const_string', value: 'so be it' }, /^so be it$/],
  [{ type: 'json_schema', json_schema: { enum: [1, 'two'] } }, /^(1|"two")$/],
  [{ type: 'qwen_xml_parameter', json_schema: PARAMETERS }, /^<parameter=n>\s*(1|22)\s*<\/parameter>$/],
  [{ type: 'regex', pattern: '[0-9]{4}' }, /^\d{4}$/],
  [{ type: 'grammar', grammar: 'root ::= "a" | "b" root "c"' }, /^b*ac*$/],
  [{ type: 'any_text' }, /^/],
  [
    {
      type: 'sequence',
      elements: [
        { type: 'const_string', value: 'It is ' },
        { type: 'regex', pattern: '[0-9]+' },
      ],
    },
    /^It is \d+$/,
  ],
  [
    {
      type: 'or',
      elements: [
        { type: 'const_string', value: 'left' },
        { type: 'regex', pattern: 'r[a-z]{4}' },
      ],
    },
    /^(left|r[a-z]{4})$/,
  ],
  [{ type: 'tag', begin: '<a>', content: { type: 'regex', pattern: '[a-z]{3}' }, end: '</a>' }, /^<a>[a-z]{3}<\/a>$/],
  [
    { type: 'triggered_tags', triggers: ['<n>'], tags: [NUMBER_TAG], at_least_one: true, stop_after_first: true },
    /^<n>\d{1,2}<\/n>$/,
  ],
  [
    { type: 'tags_with_separator', separator: ', ', tags: [NUMBER_TAG], at_least_one: true, stop_after_first: true },
    /^<n>\d{1,2}<\/n>$/,
  ],
];

test.each(FORMATS)('a structural tag: %j', async (format, pattern) => {
  const asField = { structured_outputs: { structural_tag: JSON.stringify({ format }), disable_any_whitespace: true } };
  const asFormat = { response_format: { type: 'structural_tag', format } };
  const isBounded = !/any_text|"grammar"|\+/.test(JSON.stringify(format));
  for (const form of [asField, isBounded ? asFormat : asField]) {
    const { choices } = await complete(server, {
      prompt: 'Say:',
      max_tokens: 40,
      n: 3,
      temperature: 1,
      seed: 5,
      // This model would go on with white space.
      logit_bias: NO_SPACE,
      ...form,
    });
    for (const { text, finish_reason: reason } of choices) {
      if (isBounded && form === asField) expect(reason, text).toBe('stop');
      if (reason === 'stop') expect(text).toMatch(pattern);
    }
  }
});

test('allowed_token_ids narrow the grammar further', async () => {
  const { status, body } = await post(`${server.url}/tokenize`, { prompt: 'no', add_special_tokens: false });
  expect(status).toBe(200);
  const { tokens } = body as { tokens: number[] };
  const { choices } = await complete(server, {
    prompt: 'Yes or no?',
    max_tokens: 8,
    temperature: 2,
    n: 8,
    structured_outputs: { choice: ['yes', 'no', 'maybe'] },
    allowed_token_ids: [...tokens, ...EOS],
  });
  expect(new Set(choices.map(({ text }) => text))).toEqual(new Set(['no']));
});

test('sixteen schemas at once, beside requests without one', async () => {
  const plain = { prompt: 'Once upon a time', temperature: 0, max_tokens: 24, logprobs: 1 };
  const alone = await complete(server, plain);
  const schemas = Array.from({ length: 16 }, (_, i) => ({
    type: 'object',
    properties: { [`field${i}`]: { enum: [i, `v${i}`] }, flag: { type: 'boolean' } },
    required: [`field${i}`, 'flag'],
    additionalProperties: false,
  }));
  const [answers, beside] = await Promise.all([
    Promise.all(
      schemas.map((json, i) =>
        complete(
          server,
          person({ structured_outputs: { json, disable_any_whitespace: true }, temperature: 1.5, seed: i }),
        ),
      ),
    ),
    Promise.all([complete(server, plain), complete(server, plain)]),
  ]);
  answers.forEach(({ choices }, i) => {
    expectValid(schemas[i]!, choices);
  });
  for (const { choices } of beside) expect(choices[0]!.text).toBe(alone.choices[0]!.text);
});

test('a stop string ends a constrained text', async () => {
  const { choices } = await complete(server, person({ temperature: 0, stop: [','] }));
  expect(choices[0]!.finish_reason).toBe('stop');
  expect(choices[0]!.text).not.toContain(',');
});

/** Multiplied out it has 2 ** 16 branches. */
const EXPLODING = Array.from({ length: 16 }, (_, i) => ({ anyOf: [{ required: [`p${i}`] }, { required: ['q'] }] }));

test('a client mistake is a 400, and the server lives', async () => {
  const bad = [
    { response_format: { type: 'xml' } },
    { response_format: { type: 'json_schema' } },
    { response_format: { type: 'json_schema', json_schema: { name: 'x', schema: { type: 'bogus' } } } },
    { structured_outputs: {} },
    { structured_outputs: { regex: 'a', choice: ['b'] } },
    { structured_outputs: { choice: [] } },
    { structured_outputs: { json: { allOf: EXPLODING } } },
    { structured_outputs: { grammar: `start: ${'('.repeat(50_000)}` } },
    { structured_outputs: { json: '{' } },
    { structured_outputs: { json: { $ref: 'https://example.com/schema.json' } } },
    { structured_outputs: { choice: ['yes'] }, allowed_token_ids: [0] },
  ];
  for (const fields of bad) {
    const { status } = await post(`${server.url}/v1/completions`, { prompt: 'x', max_tokens: 8, ...fields });
    expect(status, JSON.stringify(fields).slice(0, 100)).toBe(400);
  }
  expectValid(PERSON, (await complete(server, person({ temperature: 0 }))).choices);
});

test('while slow grammars are compiled, quick ones and plain requests are answered', async () => {
  const order: string[] = [];
  const ask = async (name: string, extra: object) => {
    const { status } = await post(`${server.url}/v1/completions`, { prompt: 'x', max_tokens: 4, ...extra });
    order.push(name);
    return status;
  };
  // llguidance takes a second or more for each of these; on a busy machine they may pass the deadline.
  const slow = ['a', 'b', 'c', 'd'].map((prefix) => ({
    type: 'object',
    properties: Object.fromEntries(Array.from({ length: 4000 }, (_, i) => [`${prefix}${i}`, { type: 'boolean' }])),
  }));
  const slowOnes = Promise.all(slow.map((json) => ask('slow', { structured_outputs: { json } })));
  const quickOnes = Promise.all([ask('quick', { structured_outputs: { regex: 'quick' } }), ask('quick', {})]);
  expect(await quickOnes).toEqual([200, 200]);
  await slowOnes;
  expect(order).toEqual(['quick', 'quick', 'slow', 'slow', 'slow', 'slow']);
});

test('grammars without end are a 400 or a 503, hold nobody, and leave nothing behind', async () => {
  const ask = async (structured_outputs: object) => {
    const { status } = await post(`${server.url}/v1/completions`, { prompt: 'x', max_tokens: 4, structured_outputs });
    return status;
  };
  const endless = Object.values(endlessGrammars()).map(({ kind, text }) =>
    kind === 'lark' ? { grammar: text } : { json: text },
  );
  const started = [...endless, ...endless.map((each) => ({ ...each, disable_any_whitespace: true }))].map(ask);
  const quick = await Promise.all(Array.from({ length: 4 }, (_, i) => ask({ regex: `quick ${i}` })));
  expect(quick).toEqual([200, 200, 200, 200]);
  for (const status of await Promise.all(started)) expect([400, 503]).toContain(status);
  // No process is at a grammar any more, so that a new one is tried at once by the one that is kept.
  expect(await ask({ regex: 'afterwards' })).toBe(200);
  // The kernel takes a moment to end the others; the test's deadline tells of one that stays.
  while ((await numChildren(server.pid)) > 1) await Bun.sleep(5);
});

async function numChildren(pid: number): Promise<number> {
  const children = await Bun.file(`/proc/${pid}/task/${pid}/children`).text();
  return children.split(' ').filter((each) => each !== '').length;
}

/** Schemas as clients write them, right and wrong. */
const { node: anySchema } = fc.letrec<{ node: unknown }>((tie) => {
  const wrong = fc.constantFrom<unknown>(null, -1, 'x', [], {}, 1e308, '(', '$ref', true);
  const keyword = fc.constantFrom(
    'minLength',
    'maxItems',
    'minimum',
    'multipleOf',
    'pattern',
    'format',
    'enum',
    '$ref',
  );
  const words = fc.dictionary(keyword, wrong, { maxKeys: 2 });
  const type = fc.constantFrom<unknown>('object', 'array', 'string', 'number', ['null', 'integer'], 'bogus', 3);
  const schemas = fc.array(tie('node'), { maxLength: 3 });
  const nested = fc.record(
    {
      properties: fc.dictionary(fc.string({ maxLength: 6, unit: 'binary' }), tie('node'), { maxKeys: 3 }),
      items: tie('node'),
      anyOf: schemas,
      allOf: schemas,
      oneOf: schemas,
      not: tie('node'),
      required: fc.array(fc.string({ maxLength: 3 }), { maxLength: 2 }),
      additionalProperties: tie('node'),
      $defs: fc.dictionary(fc.constantFrom('a', 'b'), tie('node'), { maxKeys: 2 }),
    },
    { requiredKeys: [] },
  );
  return {
    node: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      wrong,
      fc.tuple(fc.record({ type }, { requiredKeys: [] }), words, nested).map((parts) => Object.assign({}, ...parts)),
    ),
  };
});

test('any schema, regular expression or grammar is a 200 or a 400', async () => {
  const grammarText = fc.string({ unit: fc.constantFrom(...'ab01()[]{}|*+?.\\^$,:-/"~&% \n'), maxLength: 30 });
  const fields = fc.oneof(
    { weight: 4, arbitrary: fc.record({ json: anySchema }) },
    fc.record({ regex: grammarText }),
    grammarText.map((text) => ({ grammar: `start: ${text}` })),
    fc.record({ choice: fc.array(fc.string({ unit: 'binary', maxLength: 5 }), { maxLength: 3 }) }),
  );
  const ask = async (structured_outputs: object) => {
    const { status, body } = await post(`${server.url}/v1/completions`, {
      prompt: 'x',
      max_tokens: 3,
      structured_outputs,
    });
    expect([200, 400], JSON.stringify({ structured_outputs, body })).toContain(status);
  };
  await fc.assert(
    fc.asyncProperty(fc.array(fields, { minLength: 4, maxLength: 8 }), async (all) => {
      await Promise.all(all.map(ask));
    }),
    { seed: 20, numRuns: 40, endOnFailure: true },
  );
  expectValid(PERSON, (await complete(server, person({ temperature: 0 }))).choices);
});
