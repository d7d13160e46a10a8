import { type TextTemplate, textTemplateOf } from './text-template.ts';
import { byteDecodingOf, type TokenSpelling, tokenSpelling } from './token-bytes.ts';
import type { ByteDecoding, Tokenizer } from './tokenizer.ts';
import { type TokenizerFiles, tokenText } from './tokenizer-files.ts';

const utf8 = new TextEncoder();

/** What the implementations share: special tokens, the bytes of a token, and decoding by those bytes where that is enough. */
export abstract class BaseTokenizer implements Tokenizer {
  readonly vocabSize: number;
  readonly specialTokenIds: ReadonlySet<number>;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | null;
  readonly specialTokens: ReadonlyMap<string, string>;
  readonly byteDecoding: ByteDecoding | null;
  readonly textTemplate: TextTemplate | null;
  readonly truncationSide: 'left' | 'right';
  readonly #addedTokens: ReadonlyMap<number, string>;
  readonly #spell: TokenSpelling;
  readonly #bytes: (Uint8Array | undefined)[] = [];

  protected constructor(files: TokenizerFiles, numTokens: number, lookUp: (token: string) => number | null) {
    const added = files.json.added_tokens;
    this.#addedTokens = new Map(added.map((token) => [token.id, token.content]));
    this.vocabSize = added.reduce((size, token) => Math.max(size, token.id + 1), numTokens);
    const named = [...files.specialTokens.values(), ...files.additionalSpecialTokens];
    this.specialTokenIds = new Set([
      ...added.filter((token) => token.special).map((token) => token.id),
      ...named.map(lookUp).filter((id) => id !== null),
    ]);
    this.bosTokenId = idOf(files.specialTokens.get('bos_token'), lookUp);
    this.eosTokenId = idOf(files.specialTokens.get('eos_token'), lookUp);
    this.specialTokens = files.specialTokens;
    this.byteDecoding = byteDecodingOf(files.json);
    this.textTemplate = textTemplateOf(files.json.post_processor);
    this.truncationSide = files.config.truncation_side === 'left' ? 'left' : 'right';
    this.#spell = tokenSpelling(files.json);
  }

  abstract encode(text: string, options: { addSpecialTokens: boolean }): Int32Array;
  abstract idToToken(id: number): string | null;
  abstract tokenToId(token: string): number | null;
  /** The library's decoder over tokens in the vocabulary's spelling. */
  protected abstract decodeTokens(tokens: string[]): string;

  decode(ids: ArrayLike<number>, options: { skipSpecialTokens: boolean }): string {
    const kept: number[] = [];
    for (let i = 0; i < ids.length; i++) {
      if (!options.skipSpecialTokens || !this.specialTokenIds.has(ids[i]!)) kept.push(ids[i]!);
    }
    return this.byteDecoding === null ? this.#decodeText(kept) : this.#decodeBytes(kept, this.byteDecoding);
  }

  tokenBytes(id: number): Uint8Array | null {
    const known = this.#bytes[id];
    if (known !== undefined) return known;
    const added = this.#addedTokens.get(id);
    const token = added ?? this.idToToken(id);
    if (token === null) return null;
    const bytes = added === undefined ? this.#spell(token) : utf8.encode(added);
    this.#bytes[id] = bytes;
    return bytes;
  }

  #decodeBytes(ids: number[], { stripStart }: ByteDecoding): string {
    const parts: Uint8Array[] = [];
    for (const id of ids) {
      const bytes = this.tokenBytes(id);
      if (bytes !== null) parts.push(bytes);
    }
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(parts));
    return text.slice(leadingSpaces(text, stripStart));
  }

  #decodeText(ids: number[]): string {
    const tokens = ids.map((id) => this.idToToken(id)).filter((token) => token !== null);
    return tokens.length === 0 ? '' : this.decodeTokens(tokens);
  }
}

/** The largest id of a vocabulary plus one. Unigram models list [token, score], the others map token to id. */
export function countVocab(vocab: unknown): number {
  if (Array.isArray(vocab)) return vocab.length;
  let size = 0;
  for (const id of Object.values(vocab as Record<string, number>)) if (id >= size) size = id + 1;
  return size;
}

/** Number of spaces at the start of the text, at most `limit`. */
export function leadingSpaces(text: string, limit: number): number {
  let count = 0;
  while (count < limit && text[count] === ' ') count++;
  return count;
}

function idOf(token: string | undefined, lookUp: (token: string) => number | null): number | null {
  const text = tokenText(token);
  return text === null ? null : lookUp(text);
}
