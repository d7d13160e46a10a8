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

/** Letters that Unicode 17 has added: Bun's regular expressions know them, and the Rust library, of Unicode 16, cuts texts at them as at other unknown characters. */
const NEW_LETTERS =
  /[\u088f\u0c5c\u0cdc\ua7ce\ua7cf\ua7d2\ua7d4\ua7f1\u{10940}-\u{10959}\u{10ec5}-\u{10ec7}\u{11db0}-\u{11de9}\u{16ea0}-\u{16ed3}\u{16ff2}-\u{16ff6}\u{18d09}-\u{18d1e}\u{18d80}-\u{18df2}\u{1e6c0}-\u{1e6ff}\u{2b73a}-\u{2b73f}\u{2cea2}-\u{2cead}\u{323b0}-\u{33479}]/gu;

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
  .map((parts) => parts.join('').replace(NEW_LETTERS, ''));
