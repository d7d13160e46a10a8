import type { GrammarSpec } from '../sampling/structured-outputs-params.ts';

export type GrammarStatus = 'compiling' | 'ready' | 'failed';

/** open: the text may go on. complete: only its end may follow. refused: the token is not allowed. */
export type AcceptResult = 'open' | 'complete' | 'refused';

/** Grammars for one vocabulary. Compiling takes place elsewhere and never holds the calling thread. */
export interface GrammarBackend {
  /** Words of a mask: one bit a token. */
  readonly maskWords: number;
  /** Starts a compile, or finds its result. */
  compile(spec: GrammarSpec): Grammar;
  /**
   * The next tokens' masks of matchers, `maskWords` words each, one after another.
   *
   * @returns how many were written, in order; fewer than there are when the next one can't go on
   */
  fillMasks(matchers: readonly GrammarMatcher[], dest: Int32Array): number;
  /** Ends what the backend has running beside this thread. */
  close?(): void;
}

/** Native memory: `free` must be called. */
export interface Grammar {
  readonly status: GrammarStatus;
  /** Why it failed; of a ready one what the engine reads more loosely than written, or ''. */
  message(): string;
  /** A matcher at the start of the grammar, which must be ready. */
  createMatcher(): GrammarMatcher;
  free(): void;
}

/** One sequence's place in a grammar. Native memory: `free` must be called. */
export interface GrammarMatcher {
  accept(tokenId: number): AcceptResult;
  free(): void;
}
