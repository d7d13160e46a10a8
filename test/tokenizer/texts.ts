import fc from 'fast-check';

const SPECIAL = ['<|im_start|>', '<|im_end|>', '<|endoftext|>', '<think>', '</think>', '<tool_call>', '<|im_', 'end|>'];
const AWKWARD = [
  ' ',
  '  ',
  '\n',
  '\r\n',
  '\t',
  '\u00a0',
  '\u3000',
  '\u200d',
  '\u0301',
  '\ufeff',
  '\u0085',
  '\u2028',
  '\u0000',
  '\u001f',
  '\u007f',
  '👩‍👩‍👧',
  '🇩🇪',
  '日本語',
  '한국어',
  'العربية',
  'é',
  'e\u0301',
  'ﬁ',
  'Ⅷ',
  '①',
  '٣',
  "'s",
  "'S",
  "'ſ",
  "we'LL",
  'K',
  '\ud800',
  '\udfff',
  '�',
];

/** Texts that tokenizers find hard: any Unicode, special tokens in the text, emoji, combining and control characters, lone surrogates, long runs. */
export const awkwardText: fc.Arbitrary<string> = fc
  .array(
    fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.string({ unit: 'grapheme' }),
      fc.string(),
      fc.constantFrom(...SPECIAL, ...AWKWARD),
      fc
        .tuple(fc.constantFrom('a', '0', ' ', '\n', 'é', '!', '😀'), fc.integer({ min: 1, max: 300 }))
        .map(([unit, count]) => unit.repeat(count)),
    ),
    { maxLength: 12 },
  )
  .map((parts) => parts.join(''));
