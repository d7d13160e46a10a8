import { describe, expect, test } from 'bun:test';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { Tokenizer as RustTokenizer } from 'tokenizers';
import { LoadError } from '../../src/loader/load-error.ts';
import { createTokenizer, TOKENIZER_MODES } from '../../src/tokenizer/create-tokenizer.ts';
import examples from '../reference/examples.json';
import { awkwardText } from './texts.ts';
import { DEMO, sentencePieceTokenizer, withTokenizerFolder, wordPieceTokenizer } from './tokenizer-folder.ts';

const plain = { addSpecialTokens: false };
const js = await createTokenizer(DEMO, { mode: 'js' });
const native = await createTokenizer(DEMO, { mode: 'native' });
const rust = RustTokenizer.fromFile(join(DEMO, 'tokenizer.json'));

describe('the demo tokenizer', () => {
  test.each(TOKENIZER_MODES)('mode %s gives what vLLM recorded', async (mode) => {
    const tokenizer = await createTokenizer(DEMO, { mode });
    const encode = tokenizer.encodeAsync?.bind(tokenizer) ?? tokenizer.encode.bind(tokenizer);
    const { tokenize, tokenize_chat: chat, detokenize } = examples;
    expect([...(await encode(tokenize.request.body.prompt, plain))]).toEqual(tokenize.body.tokens);
    expect(chat.body.tokens.map((id) => tokenizer.idToToken(id))).toEqual(chat.body.token_strs);
    expect(chat.body.token_strs.map((token) => tokenizer.tokenToId(token))).toEqual(chat.body.tokens);
    expect(tokenizer.decode(detokenize.request.body.tokens, { skipSpecialTokens: false })).toBe(detokenize.body.prompt);
  });

  test.each([
    ['js', js],
    ['native', native],
  ] as const)('%s: vocabulary and special tokens', (_mode, tokenizer) => {
    expect(tokenizer.vocabSize).toBe(2048);
    expect([...tokenizer.specialTokenIds].sort()).toEqual([2039, 2040, 2041]);
    expect(tokenizer.eosTokenId).toBe(2041);
    expect(tokenizer.bosTokenId).toBeNull();
    expect(tokenizer.specialTokens?.get('eos_token')).toBe('<|im_end|>');
    for (const id of [-1, 2048, 2 ** 32, 2 ** 32 + 5, 1.5, Number.NaN]) {
      expect(tokenizer.idToToken(id)).toBeNull();
      expect(tokenizer.tokenBytes(id)).toBeNull();
    }
    expect(tokenizer.tokenToId('no such token')).toBeNull();
    expect(tokenizer.decode([], { skipSpecialTokens: false })).toBe('');
    expect(tokenizer.decode([2040, 1272, 2041, 2042], { skipSpecialTokens: true })).toBe('Hello<think>');
    expect(tokenizer.decode([2040, 1272, 99999], { skipSpecialTokens: false })).toBe('<|im_start|>Hello');
  });

  test('js and native give the same ids for any text, and decode gives the text back', async () => {
    await fc.assert(
      fc.asyncProperty(awkwardText, fc.boolean(), async (text, addSpecialTokens) => {
        const ids = js.encode(text, { addSpecialTokens });
        expect(await native.encodeAsync!(text, { addSpecialTokens })).toEqual(ids);
        expect(js.decode(ids, { skipSpecialTokens: false })).toBe(text.toWellFormed());
      }),
      { numRuns: 1000 },
    );
  });

  test('decode equals that of the Rust library for any ids', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.nat(2047), { maxLength: 40 }), fc.boolean(), async (ids, skipSpecialTokens) => {
        const expected = await rust.decode(ids, skipSpecialTokens);
        expect(js.decode(ids, { skipSpecialTokens })).toBe(expected);
        expect(native.decode(ids, { skipSpecialTokens })).toBe(expected);
      }),
      { numRuns: 500 },
    );
  });

  test('tokenBytes of the ids of a text, joined, are its UTF-8 form', () => {
    fc.assert(
      fc.property(awkwardText, (text) => {
        const bytes = [...js.encode(text, plain)].map((id) => js.tokenBytes(id)!);
        expect(Buffer.concat(bytes).equals(Buffer.from(text.toWellFormed()))).toBe(true);
      }),
      { numRuns: 300 },
    );
    for (let id = 0; id < 2048; id++) expect(native.tokenBytes(id)).toEqual(js.tokenBytes(id));
  });
});

describe('a SentencePiece vocabulary with byte fallback', () => {
  const files = {
    'tokenizer.json': sentencePieceTokenizer(),
    'tokenizer_config.json': { bos_token: { content: '<s>' }, eos_token: '</s>', unk_token: '<unk>' },
  };

  test.each(['js', 'native'] as const)('%s', (mode) =>
    withTokenizerFolder(files, async (folder) => {
      const tokenizer = await createTokenizer(folder, { mode });
      expect([tokenizer.bosTokenId, tokenizer.eosTokenId]).toEqual([1, 2]);
      expect(tokenizer.byteDecoding).toEqual({ stripStart: 1 });
      const text = 'hello  world, 😀é!';
      const ids = await (tokenizer.encodeAsync?.(text, { addSpecialTokens: true }) ??
        tokenizer.encode(text, { addSpecialTokens: true }));
      const reference = RustTokenizer.fromFile(join(folder, 'tokenizer.json'));
      const expected = await reference.encode(text);
      expect([...ids]).toEqual(expected.getIds());
      expect(ids[0]).toBe(1);
      expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe(text);
      expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(await reference.decode([...ids], false));
      const bytesOf = (token: string) => Buffer.from(tokenizer.tokenBytes(tokenizer.tokenToId(token)!)!).toString();
      expect(bytesOf('▁hello')).toBe(' hello');
      expect(bytesOf('é')).toBe('é');
      expect(bytesOf('</s>')).toBe('</s>');
      expect(tokenizer.tokenBytes(tokenizer.tokenToId('<0xF0>')!)).toEqual(Uint8Array.of(0xf0));
    }),
  );
});

describe('a WordPiece vocabulary', () => {
  test.each(['js', 'native'] as const)('%s: text depends on neighbours', (mode) =>
    withTokenizerFolder({ 'tokenizer.json': wordPieceTokenizer() }, async (folder) => {
      const tokenizer = await createTokenizer(folder, { mode });
      expect(tokenizer.byteDecoding).toBeNull();
      const ids = [3, 5, 7, 8, 6, 11];
      expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe('hello tokenizers .');
      expect(Buffer.from(tokenizer.tokenBytes(7)!).toString()).toBe('ize');
      expect(Buffer.from(tokenizer.tokenBytes(3)!).toString()).toBe(' hello');
    }),
  );
});

describe('files', () => {
  test('no tokenizer.json: the error names the way out', async () => {
    await withTokenizerFolder({}, async (folder) => {
      await expect(createTokenizer(folder, { mode: 'auto' })).rejects.toThrow(`${folder}: there is no tokenizer.json`);
      await expect(createTokenizer(folder, { mode: 'auto' })).rejects.toThrow('--skip-tokenizer-init');
    });
  });

  test.each([
    ['not JSON', { 'tokenizer.json': '{' }, 'tokenizer.json: not valid JSON'],
    ['a list', { 'tokenizer.json': '[]' }, 'tokenizer.json: not a JSON object'],
    ['no model', { 'tokenizer.json': '{}' }, '"model" is missing'],
    [
      'a broken tokenizer_config.json',
      { 'tokenizer.json': wordPieceTokenizer(), 'tokenizer_config.json': 'x' },
      'tokenizer_config.json: not valid JSON',
    ],
    [
      'an unknown model type',
      { 'tokenizer.json': { ...wordPieceTokenizer(), model: { type: 'Magic', vocab: {} } } },
      "tokenizer.json can't be used",
    ],
  ])('%s', async (_what, files, message) => {
    await withTokenizerFolder(files, async (folder) => {
      for (const mode of TOKENIZER_MODES) {
        const failure = await createTokenizer(folder, { mode }).catch((error) => error);
        expect(failure).toBeInstanceOf(LoadError);
        expect(failure.message).toContain(message);
      }
    });
  });

  test('auto takes the native one where the JavaScript one would be wrong', async () => {
    const json = wordPieceTokenizer();
    json.added_tokens[1]!.single_word = true;
    await withTokenizerFolder({ 'tokenizer.json': json }, async (folder) => {
      const tokenizer = await createTokenizer(folder, { mode: 'auto' });
      expect(tokenizer.encodeAsync).toBeFunction();
      await expect(createTokenizer(folder, { mode: 'js' })).rejects.toThrow('the added token "[CLS]" is single_word');
    });
  });

  test('truncation and padding in tokenizer.json do not touch prompts', async () => {
    const truncation = { direction: 'Right', max_length: 2, strategy: 'LongestFirst', stride: 0 };
    const padding = {
      strategy: { Fixed: 9 },
      direction: 'Right',
      pad_to_multiple_of: null,
      pad_id: 0,
      pad_type_id: 0,
      pad_token: '[UNK]',
    };
    await withTokenizerFolder(
      { 'tokenizer.json': { ...wordPieceTokenizer(), truncation, padding } },
      async (folder) => {
        const viaNative = await createTokenizer(folder, { mode: 'native' });
        const viaJs = await createTokenizer(folder, { mode: 'js' });
        expect([...(await viaNative.encodeAsync!('hello world a', plain))]).toEqual([3, 4, 9]);
        expect([...viaJs.encode('hello world a', plain)]).toEqual([3, 4, 9]);
      },
    );
  });

  test('added tokens of tokenizer_config.json count, and named special tokens are special', async () => {
    await withTokenizerFolder(
      {
        'tokenizer_config.json': {
          added_tokens_decoder: {
            2048: { content: '<|new|>', special: true },
            2042: { content: '<think>', special: false },
          },
          additional_special_tokens: ['<tool_call>'],
        },
        'special_tokens_map.json': { eos_token: '<|endoftext|>', bos_token: { content: '<|im_start|>' } },
      },
      async (folder) => {
        cpSync(join(DEMO, 'tokenizer.json'), join(folder, 'tokenizer.json'));
        for (const mode of ['js', 'native'] as const) {
          const tokenizer = await createTokenizer(folder, { mode });
          expect(tokenizer.vocabSize).toBe(2049);
          expect([...tokenizer.encode('Hello<|new|>', plain)]).toEqual([1272, 2048]);
          expect([...tokenizer.specialTokenIds].sort()).toEqual([2039, 2040, 2041, 2044, 2048]);
          expect([tokenizer.bosTokenId, tokenizer.eosTokenId]).toEqual([2040, 2039]);
          expect(tokenizer.decode([1272, 2048, 2044], { skipSpecialTokens: true })).toBe('Hello');
        }
      },
    );
  });
});
