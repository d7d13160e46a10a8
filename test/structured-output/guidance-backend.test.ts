import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { GrammarSpec } from '../../src/sampling/structured-outputs-params.ts';
import type { Grammar } from '../../src/structured-output/grammar.ts';
import { type Constraint, grammarSpec } from '../../src/structured-output/grammar-spec.ts';
import { GuidanceBackend } from '../../src/structured-output/guidance-backend.ts';
import { StructuredOutputs } from '../../src/structured-output/structured-outputs.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';

const config = await new EngineArgs({ model: 'models/demo' }).createEngineConfig();
const tokenizer = await createTokenizer(config.model.tokenizerFolder!, { mode: 'auto' });
const backend = new GuidanceBackend(config);
await backend.registerVocabulary(tokenizer);
const OPTIONS = { disableAnyWhitespace: false, disableAdditionalProperties: false, whitespacePattern: null };
const eos = config.model.eosTokenIds[0]!;

async function compiled(spec: GrammarSpec): Promise<Grammar> {
  const grammar = backend.compile(spec);
  while (grammar.status === 'compiling') await Bun.sleep(0);
  return grammar;
}

/** Whether the grammar takes the whole text, and allows each token by its mask too. */
async function takes(constraint: Constraint, text: string, options = OPTIONS): Promise<boolean> {
  const grammar = await compiled(grammarSpec(constraint, options));
  expect(grammar.message()).toBe('');
  const matcher = grammar.createMatcher();
  const mask = new Int32Array(backend.maskWords);
  try {
    for (const id of [...tokenizer.encode(text, { addSpecialTokens: false }), eos]) {
      backend.wait([matcher], 10_000);
      backend.copyMasks([matcher], mask);
      const allowed = ((mask[id >> 5]! >> (id & 31)) & 1) === 1;
      if (!allowed) return false;
      // Only EOS is left of a complete text.
      if (id !== eos) matcher.advance([id]);
    }
    return true;
  } finally {
    matcher.free();
    grammar.free();
  }
}

const PERSON = {
  type: 'object',
  properties: { name: { type: 'string' }, age: { type: 'integer' } },
  required: ['name'],
};

describe('guidance', () => {
  test.each<[string, Constraint, string[], string[]]>([
    [
      'json',
      { kind: 'json', schema: PERSON },
      ['{"name": "Kate", "age": 3}', '{ "name":"K" }'],
      ['{"age": 3}', '[]', '{"name": 1}'],
    ],
    ['json_object', { kind: 'json_object' }, ['{}', '{"a": [1, {}]}'], ['[]', '"a"', '{"a"}']],
    ['regex', { kind: 'regex', pattern: '[0-9]{3}-[0-9]{4}' }, ['123-4567'], ['123-456', '12-34567', 'a123-4567']],
    ['choice', { kind: 'choice', choices: ['yes', 'no "q"\n', 'é'] }, ['yes', 'no "q"\n', 'é'], ['ye', 'yes!', '']],
    ['choices one of which is empty', { kind: 'choice', choices: ['', 'a', 'ab'] }, ['', 'a', 'ab'], ['b', 'aa']],
    [
      'choices by the thousand',
      { kind: 'choice', choices: Array.from({ length: 5000 }, (_, i) => `label ${i} of the list`) },
      ['label 0 of the list', 'label 4999 of the list'],
      ['label 5000 of the list', 'label 4', ''],
    ],
    ['grammar', { kind: 'grammar', lark: 'start: A+ "!"\nA: /[ab]/' }, ['a!', 'abba!'], ['!', 'ac!', 'ab']],
    [
      'structural_tag',
      {
        kind: 'structural_tag',
        tags: [
          { trigger: '<f', begin: '<fa>', schema: PERSON, end: '</f>' },
          { trigger: '<f', begin: '<fb>', schema: { type: 'integer' }, end: '</f>' },
        ],
      },
      ['no tag', 'see\n\n\n          <fb>12</f> and\n\n\n<fa>{"name": "x"}</f>.\n\n\n', ''],
      ['see <fb>no</f>', '<fc>1</f>', '<fb>1'],
    ],
  ])('%s', async (_, constraint, good, bad) => {
    for (const text of good) expect(await takes(constraint, text), text).toBe(true);
    for (const text of bad) expect(await takes(constraint, text), text).toBe(false);
  });

  test('options of JSON', async () => {
    const json: Constraint = { kind: 'json', schema: PERSON };
    expect(await takes(json, '{"name":  "x"}', { ...OPTIONS, disableAnyWhitespace: true })).toBe(false);
    expect(await takes(json, '{"name": "x", "b": 1}')).toBe(true);
    expect(await takes(json, '{"name": "x", "b": 1}', { ...OPTIONS, disableAdditionalProperties: true })).toBe(false);
  });

  test('a mask that nobody has begun can be made at once', async () => {
    const grammar = await compiled({ kind: 'regex', text: '[a-z]+' });
    const matcher = grammar.createMatcher();
    backend.wait([matcher], 10_000);
    const [a] = tokenizer.encode('a', { addSpecialTokens: false });
    for (let i = 0; i < 100; i++) {
      matcher.advance([a!]);
      backend.workNow(matcher);
      // If a thread had begun it, that is soon done too.
      backend.wait([matcher], 10_000);
      expect(matcher.status).toBe('open');
    }
    matcher.free();
    grammar.free();
  });

  test('masks of several matchers lie one after another', async () => {
    const grammars = await Promise.all(['a', 'b'].map((text) => compiled({ kind: 'regex', text })));
    const matchers = grammars.map((grammar) => grammar.createMatcher());
    const both = new Int32Array(2 * backend.maskWords);
    backend.wait(matchers, 10_000);
    backend.copyMasks(matchers, both);
    matchers.forEach((matcher, i) => {
      const one = new Int32Array(backend.maskWords);
      backend.copyMasks([matcher], one);
      expect([...both.subarray(i * backend.maskWords, (i + 1) * backend.maskWords)]).toEqual([...one]);
      matcher.free();
      grammars[i]!.free();
    });
    expect(both.subarray(0, backend.maskWords)).not.toEqual(both.subarray(backend.maskWords));
  });
});

describe('white space', () => {
  const LAYOUTS = [undefined, 1, 2, 4, 8, '\t'];

  test('JSON may be laid out in any usual way', async () => {
    const nested = { a: { b: [{ c: [{ d: 'x  \n\n\n  y"  {  "' }, 1] }, []] }, e: {} };
    for (const layout of LAYOUTS) {
      const text = JSON.stringify(nested, null, layout);
      for (const laidOut of [
        text,
        text.replaceAll('\n', '\r\n'),
        text.replaceAll(',\n', ' ,\n').replaceAll('": ', '" : '),
      ]) {
        expect(await takes({ kind: 'json_object' }, laidOut), laidOut).toBe(true);
        const framed: Constraint = {
          kind: 'framed',
          pieces: [{ begin: 'f "{', schema: {}, end: '\n}' }],
          repeats: true,
        };
        expect(await takes(framed, `f "{${laidOut}\n}\nf "{${laidOut}\n}`), laidOut).toBe(true);
      }
    }
    await fc.assert(
      fc.asyncProperty(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(...LAYOUTS), async (value, layout) =>
        takes({ kind: 'json', schema: {} }, JSON.stringify(value, null, layout)),
      ),
      { numRuns: 50 },
    );
  });

  const SCHEMA = {
    type: 'object',
    properties: {
      a: { type: 'array', items: { enum: [1, 'x'] }, minItems: 2, maxItems: 2 },
      b: { type: 'object', properties: { c: { type: 'boolean' } }, required: ['c'], additionalProperties: false },
    },
    required: ['a', 'b'],
    additionalProperties: false,
  };
  const PIECE = { begin: '<f "', schema: SCHEMA, end: '>' };

  test.each<[string, Constraint, string]>([
    ['a whole answer', { kind: 'json', schema: SCHEMA }, ''],
    ['a number', { kind: 'json', schema: { enum: [1, 22] } }, ''],
    ['a call', { kind: 'framed', pieces: [PIECE], repeats: false }, ''],
    [
      'a call behind free text',
      { kind: 'structural_tag', tags: [{ trigger: '<f', ...PIECE }] },
      'see "\n\n\n\n\n <f "',
    ],
  ])('who writes it wherever it may comes to an end: %s', async (_, constraint, before) => {
    const text = await spacedOut(constraint, before);
    const json = text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1);
    if (text.includes('{'))
      expect(JSON.parse(json)).toMatchObject({ a: [expect.anything(), expect.anything()], b: {} });
    expect(json.match(/\n[\r\t ]*\n/)).toBeNull();
    expect(Math.max(0, ...(json.match(/\s+/g) ?? []).map(({ length }) => length))).toBeLessThan(60);
  });

  test('a pattern of the client is left alone', () => {
    const pattern = { ...OPTIONS, whitespacePattern: ' *' };
    expect(grammarSpec({ kind: 'json', schema: {} }, pattern).jsonBegins).toBeUndefined();
    expect(grammarSpec({ kind: 'json', schema: {} }, OPTIONS).jsonBegins).toEqual([]);
  });

  /** What comes behind `before` where white space is always taken if it may come, up to the end of the text or of its first value. */
  async function spacedOut(constraint: Constraint, before: string): Promise<string> {
    const grammar = await compiled(grammarSpec(constraint, OPTIONS));
    const matcher = grammar.createMatcher();
    const mask = new Int32Array(backend.maskWords);
    const given = [...tokenizer.encode(before, { addSpecialTokens: false })];
    let text = '';
    try {
      for (let steps = 0; steps < 600; steps++) {
        backend.wait([matcher], 10_000);
        backend.copyMasks([matcher], mask);
        const allowed = [...mask.keys()].flatMap((word) => idsOf(mask[word]!, word));
        const next = given.shift() ?? allowed.find(isSpace) ?? allowed[0]!;
        if (next === eos || text.endsWith('>')) return text;
        text += new TextDecoder().decode(tokenizer.tokenBytes(next)!);
        matcher.advance([next]);
      }
      throw new Error(`it does not end: ${JSON.stringify(text)}`);
    } finally {
      matcher.free();
      grammar.free();
    }
  }

  const isSpace = (id: number) => /^\s+$/.test(new TextDecoder().decode(tokenizer.tokenBytes(id) ?? undefined));
  const idsOf = (word: number, index: number) =>
    Array.from({ length: 32 }, (_, bit) => index * 32 + bit).filter((id) => (word >> (id & 31)) & 1);
});

/** Multiplied out it has 2 ** 16 branches. */
const EXPLODING = Array.from({ length: 16 }, (_, i) => ({ anyOf: [{ required: [`p${i}`] }, { required: ['q'] }] }));

describe('what is refused', () => {
  const outputs = new StructuredOutputs(config, tokenizer);
  const resolve = (constraint: Constraint, strict = false) => outputs.resolve({ constraint, strict, options: OPTIONS });

  test.each<[string, Constraint, RegExp]>([
    [
      'a type that does not exist, deep inside',
      { kind: 'json', schema: { properties: { x: {}, user: { items: { anyOf: [{}, { type: 'bogus' }] } } } } },
      /^Grammar error: Invalid type: bogus \(at \/properties\/user[^ ]* of the schema\)$/,
    ],
    [
      'the schema of one of several tools',
      {
        kind: 'framed',
        repeats: false,
        pieces: [{}, { items: { type: 'bogus' } }].map((schema) => ({ begin: '<', schema, end: '>' })),
      },
      /^Grammar error: Invalid type: bogus \(at \/items of schema 2\)$/,
    ],
    ['a type that does not exist', { kind: 'json', schema: { type: 'bogus' } }, /^Grammar error: Invalid type: bogus/],
    ['a regular expression', { kind: 'regex', pattern: '[' }, /unclosed character class/],
    ['a grammar', { kind: 'grammar', lark: 'start: nowhere' }, /nowhere/],
    ['nesting', { kind: 'regex', pattern: '('.repeat(100_000) }, /nests more than/],
    ['size', { kind: 'choice', choices: ['x'.repeat(2 << 20)] }, /bytes are more than/],
    [
      'what the engine breaks down over, without its stack',
      { kind: 'json', schema: { type: 'array', items: { type: 'integer' }, minItems: 1e5, maxItems: 2e5 } },
      /^Grammar error: the engine can not compile it \(assertion failed: [^\n]*\)$/,
    ],
    ['blow-up', { kind: 'json', schema: { allOf: EXPLODING } }, /too large/],
  ])('%s', async (_, constraint, message) => {
    await expect(resolve(constraint)).rejects.toThrow(message);
  });

  test('what can not be kept to exactly is refused by name when strict, else read loosely', async () => {
    const constraint: Constraint = { kind: 'json', schema: { type: 'array', uniqueItems: true } };
    await expect(resolve(constraint, true)).rejects.toThrow('uniqueItems');
    const deep: Constraint = { kind: 'json', schema: { properties: { a: {}, b: constraint.schema } } };
    await expect(resolve(deep, true)).rejects.toThrow(/uniqueItems.*at \/properties\/b of/);
    expect(await resolve(constraint)).toMatchObject({ kind: 'json_schema' });
  });
});

/** Takes a second or more: llguidance looks for what may be empty in time that grows with the square of the fields. */
const slow = (prefix: string): GrammarSpec => ({
  kind: 'json_schema',
  text: JSON.stringify({
    type: 'object',
    properties: Object.fromEntries(Array.from({ length: 4000 }, (_, i) => [`${prefix}${i}`, { type: 'boolean' }])),
  }),
});

test('slow compiles do not hold quick ones; what is not wanted any more is not compiled', async () => {
  const before = backend.numLive;
  const slowOnes = ['a', 'b', 'c', 'd'].map((prefix) => backend.compile(slow(prefix)));
  const unwanted = backend.compile(slow('e'));
  unwanted.free();
  const quick = await compiled({ kind: 'regex', text: 'beside slow ones' });
  expect(quick.status).toBe('ready');
  expect(slowOnes.map(({ status }) => status)).toEqual(Array(4).fill('compiling'));
  for (const grammar of [...slowOnes, quick]) grammar.free();
  expect(backend.numLive).toBe(before);
});
