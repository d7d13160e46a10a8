import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { pairLengths } from '../../src/server/pooling/text-limits.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import { applyTemplate, numSpecialTokens, textTemplateOf } from '../../src/tokenizer/text-template.ts';

const RERANKER = join(import.meta.dir, '../goldens/bert_reranker');
const ids = (...values: number[]) => Int32Array.from(values);

test('WordPiece texts and pairs are tokenized as transformers does', async () => {
  const { pairs } = JSON.parse(readFileSync(join(RERANKER, 'golden.json'), 'utf8'));
  const tokenizer = await createTokenizer(RERANKER, { mode: 'js' });
  const template = tokenizer.textTemplate!;
  for (const { query, document, ids: expected, token_type_ids: types } of pairs) {
    const texts = [query, document].map((text: string) => tokenizer.encode(text, { addSpecialTokens: false }));
    const { ids: actual, firstTypeOne } = applyTemplate(template.pair, texts);
    expect([...actual]).toEqual(expected);
    expect(firstTypeOne).toBe(types.indexOf(1));
    const single = applyTemplate(template.single, [texts[0]!]);
    expect([...single.ids]).toEqual([...tokenizer.encode(query, { addSpecialTokens: true })]);
    expect(single.firstTypeOne).toBeNull();
  }
});

describe('post-processors of tokenizer.json', () => {
  const [a, b] = [ids(7, 8), ids(9)];
  const pairOf = (processor: unknown) => {
    const template = textTemplateOf(processor)!;
    const { ids: actual, firstTypeOne } = applyTemplate(template.pair, [a, b]);
    return { ids: [...actual], firstTypeOne, special: numSpecialTokens(template.pair) };
  };
  const roberta = { type: 'RobertaProcessing', cls: ['<s>', 0], sep: ['</s>', 2] };

  test('BERT, RoBERTa and none', () => {
    const bert = { type: 'BertProcessing', cls: ['[CLS]', 101], sep: ['[SEP]', 102] };
    expect(pairOf(bert)).toEqual({ ids: [101, 7, 8, 102, 9, 102], firstTypeOne: 4, special: 3 });
    expect(pairOf(roberta)).toEqual({ ids: [0, 7, 8, 2, 2, 9, 2], firstTypeOne: null, special: 4 });
    expect(pairOf(null)).toEqual({ ids: [7, 8, 9], firstTypeOne: 2, special: 0 });
    expect(pairOf({ type: 'ByteLevel' })).toEqual({ ids: [7, 8, 9], firstTypeOne: 2, special: 0 });
  });

  test('a sequence is its one member that adds tokens', () => {
    const sequence = { type: 'Sequence', processors: [{ type: 'ByteLevel' }, roberta] };
    expect(pairOf(sequence).ids).toEqual([0, 7, 8, 2, 2, 9, 2]);
  });

  test('what is not known gives no template', () => {
    for (const processor of [
      { type: 'Other' },
      { type: 'TemplateProcessing', single: [], pair: [{ SpecialToken: { id: '[X]' } }], special_tokens: {} },
      { type: 'Sequence', processors: [roberta, roberta] },
      'text',
    ]) {
      expect(textTemplateOf(processor)).toBeNull();
    }
  });
});

test('two texts are cut to fit together, the longer one first', () => {
  const length = fc.integer({ min: 0, max: 200 });
  fc.assert(
    fc.property(length, length, length, (length1, length2, room) => {
      const [cut1, cut2] = pairLengths(length1, length2, room);
      expect(cut1 + cut2).toBe(Math.min(room, length1 + length2));
      expect(cut1).toBeLessThanOrEqual(length1);
      expect(cut2).toBeLessThanOrEqual(length2);
      // The shorter one loses only what the longer one has no more of.
      if (length1 < length2 && cut1 < length1) expect(Math.abs(cut1 - cut2)).toBeLessThanOrEqual(1);
    }),
  );
});
