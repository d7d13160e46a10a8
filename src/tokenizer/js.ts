import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { BaseTokenizer, countVocab } from './base-tokenizer.ts';
import { applyTemplate } from './text-template.ts';
import type { TokenizerFiles } from './tokenizer-files.ts';
import { WordEncoder } from './word-encoder.ts';

const MODEL_TYPES = ['BPE', 'Unigram', 'WordPiece'];

/** A tokenizer over `@huggingface/tokenizers`, in plain JavaScript. The constructor throws for what that library would get wrong. */
export class JsTokenizer extends BaseTokenizer {
  readonly #library: HuggingFaceTokenizer;
  /** null where the library does it all. */
  readonly #words: WordEncoder | null;

  constructor(files: TokenizerFiles) {
    checkSupported(files);
    const library = new HuggingFaceTokenizer(files.json, files.config);
    super(files, countVocab(files.json.model.vocab), (token) => library.token_to_id(token) ?? null);
    this.#library = library;
    this.#words = this.textTemplate === null ? null : WordEncoder.of(library, files);
  }

  encode(text: string, { addSpecialTokens }: { addSpecialTokens: boolean }): Int32Array {
    // A lone surrogate has no UTF-8 form: it becomes U+FFFD here, as in every other implementation.
    const wellFormed = text.toWellFormed();
    if (this.#words === null || this.textTemplate === null) {
      return new Int32Array(this.#library.encode(wellFormed, { add_special_tokens: addSpecialTokens }).ids);
    }
    const ids = new Int32Array(this.#words.encode(wellFormed));
    return addSpecialTokens ? applyTemplate(this.textTemplate.single, [ids]).ids : ids;
  }

  idToToken(id: number): string | null {
    return this.#library.id_to_token(id) ?? null;
  }

  tokenToId(token: string): number | null {
    return this.#library.token_to_id(token) ?? null;
  }

  protected decodeTokens(tokens: string[]): string {
    return this.#library.decoder === null ? tokens.join(' ') : this.#library.decoder.decode(tokens);
  }
}

function checkSupported({ json }: TokenizerFiles): void {
  const { type } = json.model;
  if (type !== undefined && !MODEL_TYPES.includes(type)) {
    throw new Error(
      `models of type "${type}" are unknown to the JavaScript tokenizer, which has ${MODEL_TYPES.join(', ')}.`,
    );
  }
  const word = json.added_tokens.find((token) => token.single_word);
  if (word !== undefined) {
    throw new Error(`the added token "${word.content}" is single_word, which the JavaScript tokenizer does not know.`);
  }
}
