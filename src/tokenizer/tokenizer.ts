/** Text to token ids and back. Implementations: `js.ts` (@huggingface/tokenizers), `native.ts` (tokenizers). */
export interface Tokenizer {
  readonly vocabSize: number;
  /** Ids of the special tokens, hidden by `skip_special_tokens`. */
  readonly specialTokenIds: ReadonlySet<number>;
  readonly bosTokenId: number | null;
  readonly eosTokenId: number | null;
  encode(text: string, options: { addSpecialTokens: boolean }): Int32Array;
  decode(ids: ArrayLike<number>, options: { skipSpecialTokens: boolean }): string;
  /** The vocabulary's own spelling ("Ġthe"), null for an unknown id. */
  idToToken(id: number): string | null;
  tokenToId(token: string): number | null;
  /** The bytes that a token stands for in the middle of a text (byte-level and byte-fallback tokens included); null for an unknown id. */
  tokenBytes(id: number): Uint8Array | null;
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
