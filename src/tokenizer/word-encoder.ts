import type { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { AddedTokenSplitter } from './added-token-splitter.ts';
import type { TokenizerFiles } from './tokenizer-files.ts';

/** Longer ones are no words that come again. */
const MAX_WORD_LENGTH = 32;
/** Some megabytes; then it begins anew. */
const MAX_WORDS = 1 << 16;

/** What of the library's pre-tokenizers matters here. */
interface PreTokenizeStep {
  pre_tokenize_text(text: string, options?: object): string[];
  /** Of the steps that split. */
  pattern?: RegExp | null;
}

/**
 * The way of today's byte-level vocabularies from text to ids: added tokens are cut out, expressions split what is between them into words, and each word becomes ids, whatever the
 * words around it. Words come again and again, so their ids are remembered. A word that is new goes through the library, which takes a microsecond or more for each, and
 * handles lists of lists for a text; ids are the library's either way.
 */
export class WordEncoder {
  readonly #addedTokens: AddedTokenSplitter;
  readonly #known = new Map<string, readonly number[]>();

  private constructor(
    addedTokens: TokenizerFiles['json']['added_tokens'],
    private readonly isNormalized: boolean,
    private readonly splits: readonly PreTokenizeStep[],
    private readonly encodeWord: (word: string) => number[],
  ) {
    this.#addedTokens = new AddedTokenSplitter(addedTokens);
  }

  /** null where the files, which the library was made from, are of another form. */
  static of(library: HuggingFaceTokenizer, files: TokenizerFiles): WordEncoder | null {
    const { model } = library;
    const { json } = files;
    const steps = (library.pre_tokenizer as { tokenizers?: PreTokenizeStep[] } | null)?.tokenizers;
    if (model === null || model.fuse_unk || steps === undefined || !isByWords(files)) return null;
    const spelling = steps.at(-1)!;
    const encodeWord = (word: string) =>
      model.encode(spelling.pre_tokenize_text(word)).map((token) => library.token_to_id(token) ?? model.unk_token_id!);
    return new WordEncoder(json.added_tokens, json.normalizer != null, steps.slice(0, -1), encodeWord);
  }

  /** Ids of a well-formed text, without what a post-processor adds. */
  encode(text: string): number[] {
    const ids: number[] = [];
    this.#addedTokens.split(
      text,
      (piece) => this.#encodePiece(this.isNormalized ? piece.normalize('NFC') : piece, ids),
      (id) => ids.push(id),
    );
    return ids;
  }

  #encodePiece(piece: string, ids: number[]): void {
    let words = [piece];
    for (const step of this.splits) {
      words = words.length === 1 ? split(words[0]!, step) : words.flatMap((word) => split(word, step));
    }
    for (const word of words) for (const id of this.#idsOf(word)) ids.push(id);
  }

  #idsOf(word: string): readonly number[] {
    if (word.length > MAX_WORD_LENGTH) return this.encodeWord(word);
    let ids = this.#known.get(word);
    if (ids === undefined) {
      ids = this.encodeWord(word);
      if (this.#known.size >= MAX_WORDS) this.#known.clear();
      this.#known.set(word, ids);
    }
    return ids;
  }
}

interface StepConfig {
  type?: string;
  behavior?: string;
  invert?: boolean;
  use_regex?: boolean;
}

function isByWords({ json, config }: TokenizerFiles): boolean {
  const { normalizer, added_tokens: added, pre_tokenizer: steps } = json;
  if (config.remove_space || config.do_lowercase_and_remove_accent) return false;
  const isNfc = (normalizer as { type?: string } | null)?.type === 'NFC';
  if (normalizer != null && !isNfc) return false;
  if (added.some(({ lstrip, rstrip, normalized }) => lstrip || rstrip || (isNfc && normalized))) return false;
  const configs = (steps as { pretokenizers?: StepConfig[] } | null)?.pretokenizers ?? [];
  const { type, use_regex: splitsItself } = configs.at(-1) ?? {};
  return type === 'ByteLevel' && splitsItself === false && configs.slice(0, -1).every(isSplit);
}

function isSplit({ type, behavior, invert }: StepConfig): boolean {
  return type === 'Split' && behavior === 'Isolated' && invert !== true;
}

/** The library goes from match to match. Where matches are all that a text consists of, they are its words, and come in one call. */
function split(text: string, step: PreTokenizeStep): string[] {
  const words = step.pattern ? text.match(step.pattern) : null;
  let length = 0;
  for (const word of words ?? []) length += word === '' ? Number.NaN : word.length;
  return words !== null && length === text.length ? words : step.pre_tokenize_text(text);
}
