import { describe, expect, test } from 'bun:test';
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
      expect(backend.fillMasks([matcher], mask)).toBe(1);
      const allowed = ((mask[id >> 5]! >> (id & 31)) & 1) === 1;
      if (!allowed) return false;
      // Only EOS is left of a complete text.
      if (id !== eos) expect(matcher.accept(id)).not.toBe('refused');
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
      ['no tag', 'see <fb>12</f> and <fa>{"name": "x"}</f>.', ''],
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

  test('masks of several matchers lie one after another', async () => {
    const grammars = await Promise.all(['a', 'b'].map((text) => compiled({ kind: 'regex', text })));
    const matchers = grammars.map((grammar) => grammar.createMatcher());
    const both = new Int32Array(2 * backend.maskWords);
    expect(backend.fillMasks(matchers, both)).toBe(2);
    matchers.forEach((matcher, i) => {
      const one = new Int32Array(backend.maskWords);
      backend.fillMasks([matcher], one);
      expect([...both.subarray(i * backend.maskWords, (i + 1) * backend.maskWords)]).toEqual([...one]);
      matcher.free();
      grammars[i]!.free();
    });
    expect(both.subarray(0, backend.maskWords)).not.toEqual(both.subarray(backend.maskWords));
  });
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
