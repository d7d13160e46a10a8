import { expect, test } from 'bun:test';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { readTokenizerFiles, type TokenizerFiles } from '../../src/tokenizer/tokenizer-files.ts';
import { WordEncoder } from '../../src/tokenizer/word-encoder.ts';
import { awkwardText } from './texts.ts';
import { DEMO } from './tokenizer-folder.ts';

const demo = readTokenizerFiles(DEMO);
type Steps = { pretokenizers: Record<string, unknown>[] };
const [split, spell] = (demo.json.pre_tokenizer as Steps).pretokenizers;

function pair(json: Record<string, unknown>, config: TokenizerFiles['config'] = {}) {
  const files: TokenizerFiles = { ...demo, json: { ...demo.json, ...json }, config };
  // A library of its own, so that neither finds what the other has left in its cache.
  const library = new HuggingFaceTokenizer(structuredClone(files.json), files.config);
  return { library, words: WordEncoder.of(library, files) };
}

function steps(...pretokenizers: unknown[]) {
  return { pre_tokenizer: { type: 'Sequence', pretokenizers } };
}

const isolated = (pattern: string) => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior: 'Isolated',
  invert: false,
});
const FORMS: Record<string, Record<string, unknown>> = {
  'as the demo has it': {},
  'composed first, as in Qwen': {
    normalizer: { type: 'NFC' },
    added_tokens: demo.json.added_tokens.map((token) => ({ ...token, normalized: false })),
  },
  'split several times, as in DeepSeek': steps(isolated('\\p{N}{1,3}'), isolated('[一-龥]+'), split, spell),
  'split at matches with gaps between': steps(isolated('[a-z]+'), spell),
  'split by an expression that matches nothing too': steps(isolated('a*'), spell),
};

test.each(Object.entries(FORMS))("ids are the library's: %s", (_, json) => {
  const { library, words } = pair(json);
  fc.assert(
    fc.property(awkwardText, (given) => {
      const text = given.toWellFormed();
      const { ids } = library.encode(text, { add_special_tokens: false });
      expect(words!.encode(text)).toEqual(ids);
      // Words that are known by now.
      expect(words!.encode(text)).toEqual(ids);
    }),
    { numRuns: 200 },
  );
});

test('a word goes through the library once; what is no word, each time', () => {
  const { library, words } = pair({});
  const model = library.model!;
  const encode = model.encode.bind(model);
  let numEncoded = 0;
  model.encode = (texts) => {
    numEncoded += texts.length;
    return encode(texts);
  };
  for (let i = 0; i < 3; i++) words!.encode('an owl');
  expect(numEncoded).toBe(2);
  for (let i = 0; i < 3; i++) words!.encode('o'.repeat(100));
  expect(numEncoded).toBe(5);
});

test('words beyond what is remembered are right', () => {
  const { library, words } = pair({});
  const text = Array.from(
    { length: 70_000 },
    (_, i) => `w${i.toString(36).replace(/\d/g, (digit) => 'ghijklmnop'[Number(digit)]!)}`,
  );
  words!.encode(text.join(' '));
  const first = text.slice(0, 10).join(' ');
  expect(words!.encode(first)).toEqual(library.encode(first, { add_special_tokens: false }).ids);
});

test.each([
  ['another normalizer', { normalizer: { type: 'Lowercase' } }],
  ['words that are split while they are spelled', steps({ ...spell, use_regex: true })],
  ['pieces that are not kept', steps({ ...split, behavior: 'Removed' }, spell)],
  ['an inverted expression', steps({ ...split, invert: true }, spell)],
  ['nothing that spells', steps(split)],
  [
    'tokens that take spaces with them',
    { added_tokens: demo.json.added_tokens.map((token) => ({ ...token, lstrip: true })) },
  ],
  ['unknown words that become one', { model: { ...demo.json.model, fuse_unk: true } }],
])('left to the library: %s', (_, json) => {
  expect(pair(json).words).toBeNull();
});

test('left to the library: what tokenizer_config.json does to texts', () => {
  expect(pair({}, { remove_space: true }).words).toBeNull();
  expect(pair({}, { do_lowercase_and_remove_accent: true }).words).toBeNull();
});
