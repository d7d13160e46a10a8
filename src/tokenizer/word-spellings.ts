/** Longer ones are no words that come again. */
const MAX_WORD_LENGTH = 32;
/** Some megabytes; then it begins anew. */
const MAX_WORDS = 1 << 16;

/** What of the library's pre-tokenizers matters here. */
export interface PreTokenizeStep {
  pre_tokenize_text(text: string, options?: object): string[];
}

/**
 * Byte-level vocabularies of today split a text into words and then spell each word in the vocabulary's alphabet. The library makes a byte array and a list
 * for each word on the way, which takes half of the time of encoding; words come again and again, so their spellings are remembered.
 *
 * @param library the library's pre-tokenizer, whose steps are changed
 * @param config `pre_tokenizer` of tokenizer.json, which it was made from
 */
export function rememberSpellings(library: unknown, config: unknown): void {
  const steps = (library as { tokenizers?: PreTokenizeStep[] } | null)?.tokenizers ?? [];
  const configs = (config as { pretokenizers?: Record<string, unknown>[] } | null)?.pretokenizers ?? [];
  steps.forEach((step, index) => {
    const { type, use_regex: splitsItself } = configs[index] ?? {};
    if (type === 'ByteLevel' && splitsItself === false) rememberWords(step);
  });
}

function rememberWords(step: PreTokenizeStep): void {
  const spell = step.pre_tokenize_text.bind(step);
  const known = new Map<string, string[]>();
  step.pre_tokenize_text = (word, options) => {
    if (word.length > MAX_WORD_LENGTH) return spell(word, options);
    let spelling = known.get(word);
    if (spelling === undefined) {
      spelling = spell(word, options);
      if (known.size >= MAX_WORDS) known.clear();
      known.set(word, spelling);
    }
    return spelling;
  };
}
