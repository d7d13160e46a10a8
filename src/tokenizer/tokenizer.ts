import type { TextTemplate } from './text-template.ts';

/** Text to token ids and back. Implementations: `js.ts` (@huggingface/tokenizers), `native.ts` (tokenizers). */
export interface Tokenizer {
  readonly vocabSize: number;
  /** Ids of the special tokens, hidden by `skip_special_tokens`. */
  readonly specialTokenIds: ReadonlySet<number>;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | null;
  /** Texts by name ("bos_token"), as chat templates refer to them. */
  readonly specialTokens?: ReadonlyMap<string, string>;
  /** Where special tokens go around one text and around two; absent or null where tokenizer.json says it in a way that is not known here. */
  readonly textTemplate?: TextTemplate | null;
  /** From which side the model's author cuts texts that are too long. Absent: right. */
  readonly truncationSide?: 'left' | 'right';
  encode(text: string, options: { addSpecialTokens: boolean }): Int32Array;
  decode(ids: ArrayLike<number>, options: { skipSpecialTokens: boolean }): string;
  /** The vocabulary's own spelling ("Ġthe"), null for an unknown id. */
  idToToken(id: number): string | null;
  tokenToId(token: string): number | null;
  /** The bytes that a token stands for in the middle of a text (byte-level and byte-fallback tokens included); null for an unknown id. */
  tokenBytes(id: number): Uint8Array | null;
  /** Encodes on another thread, where the implementation can. */
  encodeAsync?(text: string, options: { addSpecialTokens: boolean }): Promise<Int32Array>;
  /** Set where decoding is nothing but joining the tokens' bytes; absent or null where a token's text depends on its neighbours. */
  readonly byteDecoding?: ByteDecoding | null;
}

export interface ByteDecoding {
  /** Spaces that are cut off the start of a text, if they are there (SentencePiece puts one before the first word). */
  stripStart: number;
}

export interface ChatMessage {
  role: string;
  content?: string | ContentPart[] | null;
  [field: string]: unknown;
}

export interface ContentPart {
  type: string;
  text?: string;
  [field: string]: unknown;
}

export interface ChatTemplateInput {
  messages: ChatMessage[];
  tools?: unknown[] | null;
  documents?: unknown[] | null;
  addGenerationPrompt: boolean;
  continueFinalMessage: boolean;
  /** Jinja text of the request, where `--trust-request-chat-template` allows it. */
  chatTemplate?: string | null;
  chatTemplateKwargs?: Record<string, unknown> | null;
}
