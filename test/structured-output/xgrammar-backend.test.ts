import { afterAll, describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { Grammar, GrammarMatcher, MatcherStatus } from '../../src/structured-output/grammar.ts';
import type { Constraint, JsonOptions, TagFormat } from '../../src/structured-output/grammar-spec.ts';
import { XGrammarBackend } from '../../src/structured-output/xgrammar/xgrammar-backend.ts';
import { xgrammarSpec } from '../../src/structured-output/xgrammar/xgrammar-spec.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';

const DEMO = join(import.meta.dir, '../../models/demo');
const config = await new EngineArgs({ model: DEMO }).createEngineConfig();
const tokenizer = await createTokenizer(DEMO, { mode: 'js' });
const EOS = config.model.eosTokenIds[0]!;
const backend = new XGrammarBackend(config);
afterAll(() => backend.close());

const OPTIONS: JsonOptions = {
  disableAnyWhitespace: true,
  disableAdditionalProperties: false,
  whitespacePattern: null,
};

async function compiled(constraint: Constraint, options = OPTIONS): Promise<Grammar> {
  const grammar = backend.compile(xgrammarSpec(constraint, options));
  while (grammar.status === 'compiling') await Bun.sleep(1);
  return grammar;
}

async function ready(constraint: Constraint, options = OPTIONS): Promise<Grammar> {
  const grammar = await compiled(constraint, options);
  expect(grammar.message()).toBe('');
  expect(grammar.status).toBe('ready');
  return grammar;
}

const has = (mask: Int32Array, id: number) => ((mask[id >> 5]! >> (id & 31)) & 1) === 1;

function settled(matcher: GrammarMatcher): MatcherStatus {
  backend.wait([matcher], 10_000);
  return matcher.status;
}

function maskOf(matcher: GrammarMatcher): Int32Array {
  const mask = new Int32Array(backend.maskWords);
  expect(settled(matcher)).not.toBe('refused');
  backend.copyMasks([matcher], mask);
  return mask;
}

/** Whether the masks let the text through, and then the end. */
function follows(grammar: Grammar, text: string): boolean {
  const matcher = grammar.createMatcher();
  try {
    for (const id of [...tokenizer.encode(text, { addSpecialTokens: false }), EOS]) {
      const isAllowed = has(maskOf(matcher), id);
      matcher.advance([id]);
      // What comes behind the end is nobody's.
      if (id !== EOS) expect(settled(matcher) === 'refused').toBe(!isAllowed);
      if (!isAllowed) return false;
    }
    return true;
  } finally {
    matcher.free();
  }
}

const CITY = { type: 'object', properties: { city: { type: 'string' }, n: { type: 'integer' } }, required: ['city'] };

const format = (node: TagFormat): Constraint => ({ kind: 'tag_format', format: node });
const text = (value: string): TagFormat => ({ type: 'const_string', value });
const COUNTS = { at_least_one: false, stop_after_first: false };
const NUMBER = {
  type: 'tag' as const,
  begin: '<n>',
  content: { type: 'json_schema' as const, json_schema: { type: 'integer' } },
  end: '</n>',
};

describe('XGrammar', () => {
  const cases: [Constraint, allowed: string[], refused: string[]][] = [
    [
      { kind: 'json', schema: CITY },
      ['{"city": "Zürich", "n": 3}', '{"city": "a"}'],
      ['{"n": 3}', '{"city": 3}', '{"city":  "a"}', 'x'],
    ],
    [{ kind: 'json_object' }, ['{"a": [1, {"b": null}]}'], ['[]', '3']],
    [{ kind: 'regex', pattern: '[ab]+(c|d)' }, ['abac', 'bd'], ['c', 'abx']],
    [{ kind: 'choice', choices: ['yes', 'a "no"', 'tab\there'] }, ['yes', 'a "no"', 'tab\there'], ['no', 'yesyes']],
    [{ kind: 'ebnf', ebnf: 'root ::= word (" " word)*\nword ::= "left" | "right"' }, ['left right left'], ['up']],
    [
      { kind: 'framed', pieces: [{ begin: '<a>', schema: CITY, end: '</a>' }], repeats: true },
      ['<a>{"city": "x"}</a>', '<a>{"city": "x"}</a>\n<a>{"city": "y"}</a>'],
      ['', '<a>{}</a>'],
    ],
    [
      { kind: 'structural_tag', tags: [{ trigger: '<f=', begin: '<f=g>', schema: CITY, end: '</f>' }] },
      ['hello', 'so <f=g>{"city": "x"}</f> and'],
      ['so <f=g>{"town": 3}</f>', 'so <f=h>'],
    ],
    [format({ type: 'const_string', value: 'so be it' }), ['so be it'], ['so', 'so be it!']],
    [format({ type: 'json_schema', json_schema: CITY }), ['{"city": "x"}'], ['{}']],
    [
      format({ type: 'qwen_xml_parameter', json_schema: { ...CITY, additionalProperties: false } }),
      ['<parameter=city>\nOslo\n</parameter>'],
      ['{"city": "x"}', '<parameter=town>x</parameter>'],
    ],
    [format({ type: 'regex', pattern: '[0-9]{2}' }), ['12'], ['1', '123', 'a']],
    [format({ type: 'grammar', grammar: 'root ::= "a" "b"*' }), ['a', 'abb'], ['b']],
    [
      format({ type: 'sequence', elements: [text('is '), { type: 'or', elements: [text('yes'), text('no')] }] }),
      ['is yes', 'is no'],
      ['is', 'yes', 'is maybe'],
    ],
    [
      format({ type: 'tag', begin: '<think>', content: { type: 'any_text' }, end: '</think>' }),
      ['<think>what < that</think>'],
      ['<think>', 'what', '<think>a</think>b'],
    ],
    [
      format({ ...COUNTS, type: 'triggered_tags', triggers: ['<'], tags: [NUMBER], at_least_one: true }),
      ['<n>1</n>', '<n>1</n> and <n>23</n>!'],
      ['', 'and <n>1</n>', '<n>x</n>', '<m>'],
    ],
    [
      format({ ...COUNTS, type: 'triggered_tags', triggers: ['<'], tags: [NUMBER], stop_after_first: true }),
      ['so <n>1</n>'],
      ['so <n>1</n> and'],
    ],
    [
      format({ ...COUNTS, type: 'tags_with_separator', tags: [NUMBER], separator: ', ', at_least_one: true }),
      ['<n>1</n>', '<n>1</n>, <n>2</n>'],
      ['', '<n>1</n><n>2</n>', '<n>1</n>, '],
    ],
  ];
  test.each(cases)('%j', async (constraint, allowed, refused) => {
    const grammar = await ready(constraint);
    for (const text of allowed) expect(follows(grammar, text), text).toBe(true);
    for (const text of refused) expect(follows(grammar, text), text).toBe(false);
    grammar.free();
  });

  test('the schemas of a tag have no other white space where that is asked for', async () => {
    const constraint = format({
      type: 'tag',
      begin: '<',
      content: { type: 'json_schema', json_schema: CITY },
      end: '>',
    });
    const open = await ready(constraint, { ...OPTIONS, disableAnyWhitespace: false });
    for (const text of ['<{"city":  "x"}>', '<{\n"city": "x"}>']) {
      expect(follows(open, text), text).toBe(true);
    }
    open.free();
    const grammar = await ready(constraint, { ...OPTIONS, disableAdditionalProperties: true });
    expect(follows(grammar, '<{"city": "x"}>')).toBe(true);
    for (const text of ['<{"city":  "x"}>', '<{\n"city": "x"}>', '<{"city": "x", "b": 1}>']) {
      expect(follows(grammar, text), text).toBe(false);
    }
    grammar.free();
    expect(() => xgrammarSpec(constraint, { ...OPTIONS, whitespacePattern: ' ' })).toThrow('whitespace_pattern');
  });

  test('behind the last token only the end may come', async () => {
    const grammar = await ready({ kind: 'choice', choices: ['yes'] });
    const matcher = grammar.createMatcher();
    const ids = [...tokenizer.encode('yes', { addSpecialTokens: false })];
    expect(settled(matcher)).toBe('open');
    matcher.advance(ids);
    expect(settled(matcher)).toBe('complete');
    const mask = maskOf(matcher);
    expect(config.model.eosTokenIds.every((id) => has(mask, id))).toBe(true);
    expect(ids.some((id) => has(mask, id))).toBe(false);
    matcher.free();
    grammar.free();
  });

  test('masks of several matchers, of several grammars in Workers of their own, lie one after another', async () => {
    const grammars = await Promise.all([
      ready({ kind: 'regex', pattern: 'a+' }),
      ready({ kind: 'regex', pattern: 'b+' }),
    ]);
    const [a, b] = ['a', 'b'].map((text) => tokenizer.encode(text, { addSpecialTokens: false })[0]!);
    const matchers = [0, 1, 1, 0].map((i) => grammars[i]!.createMatcher());
    const masks = new Int32Array(4 * backend.maskWords);
    backend.wait(matchers, 10_000);
    backend.copyMasks(matchers, masks);
    const rows = matchers.map((_, i) => masks.subarray(i * backend.maskWords, (i + 1) * backend.maskWords));
    expect(rows.map((row) => [has(row, a!), has(row, b!)])).toEqual([
      [true, false],
      [false, true],
      [false, true],
      [true, false],
    ]);
    for (const matcher of matchers) matcher.free();
    for (const grammar of grammars) grammar.free();
  });

  test('what is no grammar gives its words, and the next one finds an engine again', async () => {
    for (const [constraint, words] of [
      [{ kind: 'ebnf', ebnf: 'root ::= nowhere' }, 'Rule "nowhere" is not defined'],
      [{ kind: 'json', schema: { type: 'nonsense' } }, 'Unsupported type "nonsense"'],
      [{ kind: 'regex', pattern: '[a' }, 'Unclosed'],
    ] as const) {
      const grammar = await compiled(constraint);
      expect(grammar.status).toBe('failed');
      expect(grammar.message()).toContain(words);
      grammar.free();
    }
    (await ready({ kind: 'json_object' })).free();
  });

  test('a compile that nobody waits for any more is ended, and holds nobody', async () => {
    const endless = { kind: 'regex', pattern: '([a-z]{1,400}){1,400}' } as const;
    const slow = Array.from({ length: 4 }, (_, i) =>
      backend.compile(xgrammarSpec({ ...endless, pattern: `${i}${endless.pattern}` }, OPTIONS)),
    );
    await Bun.sleep(200);
    expect(slow.map(({ status }) => status)).toEqual(new Array(4).fill('compiling'));
    const quick = backend.compile(xgrammarSpec({ kind: 'regex', pattern: 'z' }, OPTIONS));
    expect(quick.status).toBe('compiling');
    for (const grammar of slow) grammar.free();
    while (quick.status === 'compiling') await Bun.sleep(1);
    expect(quick.status).toBe('ready');
    quick.free();
  });

  test('with its Worker a text can not go on, and nobody waits for it', async () => {
    const other = new XGrammarBackend(config);
    const grammar = other.compile(xgrammarSpec({ kind: 'json_object' }, OPTIONS));
    while (grammar.status === 'compiling') await Bun.sleep(1);
    const matcher = grammar.createMatcher();
    other.close();
    expect(matcher.status).toBe('refused');
    matcher.advance([EOS]);
    other.wait([matcher], 10_000);
    expect(matcher.status).toBe('refused');
    matcher.free();
    grammar.free();
    const next = other.compile(xgrammarSpec({ kind: 'json_object' }, OPTIONS));
    while (next.status === 'compiling') await Bun.sleep(1);
    expect(next.status).toBe('ready');
    other.close();
  });

  const SPACED = { ...OPTIONS, disableAnyWhitespace: false };

  test.each<[string, Constraint]>([
    [
      'json',
      { kind: 'json', schema: { type: 'object', properties: { a: { enum: ['[ \n\t]*', 1] } }, required: ['a'] } },
    ],
    [
      'a tag',
      format({
        ...NUMBER,
        begin: '',
        end: '',
        content: {
          type: 'json_schema',
          json_schema: { type: 'object', properties: { a: { enum: ['[ \n\t]*', 1] } }, required: ['a'] },
        },
      }),
    ],
  ])('white space has an end, and room for any usual layout: %s', async (_, constraint) => {
    const grammar = await ready(constraint, SPACED);
    const value = { a: '[ \n\t]*' };
    for (const layout of [undefined, 1, 2, 4, 8, '\t']) {
      expect(follows(grammar, JSON.stringify(value, null, layout)), `${layout}`).toBe(true);
    }
    for (const space of ['\n\n', ' '.repeat(70)]) expect(follows(grammar, `{${space}"a": 1}`), space).toBe(false);
    grammar.free();
  });

  test('what it has no words for is refused', () => {
    expect(() => xgrammarSpec({ kind: 'grammar', lark: 'start: "a"' }, OPTIONS)).toThrow('Lark needs llguidance');
    const spaced = { ...OPTIONS, whitespacePattern: ' ?' };
    expect(() => xgrammarSpec({ kind: 'json', schema: {} }, spaced)).toThrow('whitespace_pattern needs llguidance');
  });
});
