import { expect, test } from 'bun:test';
import { type PreTokenizeStep, rememberSpellings } from '../../src/tokenizer/word-spellings.ts';

class Step implements PreTokenizeStep {
  readonly spelled: string[] = [];

  pre_tokenize_text(text: string): string[] {
    this.spelled.push(text);
    return [text.toUpperCase()];
  }
}

const SPLIT = { type: 'Split' };
const SPELL = { type: 'ByteLevel', use_regex: false };

test('a word is spelled once; what is no word, each time', () => {
  const [split, spell] = [new Step(), new Step()];
  rememberSpellings({ tokenizers: [split, spell] }, { pretokenizers: [SPLIT, SPELL] });
  const sentence = 'a text of more characters than any word';
  for (const text of ['owl', 'owl', sentence, sentence]) {
    expect(spell.pre_tokenize_text(text)).toEqual([text.toUpperCase()]);
    expect(split.pre_tokenize_text(text)).toEqual([text.toUpperCase()]);
  }
  expect(spell.spelled).toEqual(['owl', sentence, sentence]);
  expect(split.spelled).toHaveLength(4);
});

test('memory is bounded, and spellings stay right beyond', () => {
  const step = new Step();
  rememberSpellings({ tokenizers: [step] }, { pretokenizers: [SPELL] });
  for (let i = 0; i < 70_000; i++) step.pre_tokenize_text(`w${i}`);
  expect(step.pre_tokenize_text('w0')).toEqual(['W0']);
  expect(step.spelled).toHaveLength(70_001);
});

test('a step that splits words itself is given whole texts, and pre-tokenizers of other forms are left alone', () => {
  const step = new Step();
  rememberSpellings({ tokenizers: [step] }, { pretokenizers: [{ ...SPELL, use_regex: true }] });
  rememberSpellings(step, SPELL);
  rememberSpellings(null, null);
  for (let i = 0; i < 2; i++) step.pre_tokenize_text('owl');
  expect(step.spelled).toEqual(['owl', 'owl']);
});
