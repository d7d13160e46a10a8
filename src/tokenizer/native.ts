import type { Decoder, Tokenizer as NativeLibraryTokenizer } from 'tokenizers';
import { BaseTokenizer } from './base-tokenizer.ts';
import { JsTokenizer } from './js.ts';
import type { TokenizerFiles } from './tokenizer-files.ts';

export type NativeLibrary = typeof import('tokenizers');

/** Loads the `tokenizers` addon. Throws what the addon's loader throws where there is no build for this platform. */
export async function loadNativeLibrary(): Promise<NativeLibrary> {
  const module = (await import('tokenizers')) as NativeLibrary & { default?: NativeLibrary };
  return module.default ?? module;
}

/** A tokenizer over the `tokenizers` package, a native addon. It encodes on its own threads. */
export class NativeTokenizer extends BaseTokenizer {
  readonly #files: TokenizerFiles;
  readonly #library: NativeLibraryTokenizer;
  readonly #decoder: Decoder | null;
  #synchronous: JsTokenizer | null = null;

  constructor(files: TokenizerFiles, library: NativeLibrary) {
    const tokenizer = library.Tokenizer.fromString(files.jsonText);
    // What a training run left in the file must not cut or pad prompts.
    tokenizer.disableTruncation();
    tokenizer.disablePadding();
    super(files, tokenizer.getVocabSize(true), (token) => tokenizer.tokenToId(token));
    this.#files = files;
    this.#library = tokenizer;
    this.#decoder = tokenizer.getDecoder();
  }

  /** The addon has no synchronous encode; short texts that must be encoded at once go through the JavaScript library, which gives the same ids. */
  encode(text: string, options: { addSpecialTokens: boolean }): Int32Array {
    this.#synchronous ??= new JsTokenizer(this.#files);
    return this.#synchronous.encode(text, options);
  }

  async encodeAsync(text: string, options: { addSpecialTokens: boolean }): Promise<Int32Array> {
    const encoding = await this.#library.encode(text.toWellFormed(), null, {
      addSpecialTokens: options.addSpecialTokens,
    });
    return Int32Array.from(encoding.getIds());
  }

  idToToken(id: number): string | null {
    // The addon takes an id as u32 and would wrap others around.
    return Number.isInteger(id) && id >= 0 && id < this.vocabSize ? this.#library.idToToken(id) : null;
  }

  tokenToId(token: string): number | null {
    return this.#library.tokenToId(token);
  }

  protected decodeTokens(tokens: string[]): string {
    return this.#decoder === null ? tokens.join(' ') : this.#decoder.decode(tokens);
  }
}
