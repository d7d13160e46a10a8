import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { BaseTokenizer, countVocab } from './base-tokenizer.ts';
import type { TokenizerFiles } from './tokenizer-files.ts';
import { rememberSpellings } from './word-spellings.ts';

const MODEL_TYPES = ['BPE', 'Unigram', 'WordPiece'];

/** A tokenizer over `@huggingface/tokenizers`, in plain JavaScript. The constructor throws for what that library would get wrong. */
export class JsTokenizer extends BaseTokenizer {
  readonly #library: HuggingFaceTokenizer;

  constructor(files: TokenizerFiles) {
    checkSupported(files);
    const library = new HuggingFaceTokenizer(files.json, files.config);
    rememberSpellings(library.pre_tokenizer, files.json.pre_tokenizer);
    super(files, countVocab(files.json.model.vocab), (token) => library.token_to_id(token) ?? null);
    this.#library = library;
  }

  encode(text: string, options: { addSpecialTokens: boolean }): Int32Array {
    // A lone surrogate has no UTF-8 form: it becomes U+FFFD here, as in every other implementation.
    const { ids } = this.#library.encode(text.toWellFormed(), { add_special_tokens: options.addSpecialTokens });
    return Int32Array.from(ids);
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
