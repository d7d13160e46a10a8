import type { GrammarSpec } from '../sampling/structured-outputs-params.ts';

export type GrammarStatus = 'compiling' | 'ready' | 'failed';

/**
 * pending: the engine is at work on it. open: the text may go on. complete: only its end may follow. refused: a token came that is not allowed, or the
 * engine can't go on.
 */
export type MatcherStatus = 'pending' | 'open' | 'complete' | 'refused';

/** Grammars for one vocabulary. Compiling takes place elsewhere and never holds the calling thread. */
export interface GrammarBackend {
  /** Words of a mask: one bit a token. */
  readonly maskWords: number;
  /** Starts a compile, or finds its result. */
  compile(spec: GrammarSpec): Grammar;
  /** Does on the calling thread, however long it takes, what a matcher is to do and nobody has begun. Absent: the engine can't. */
  workNow?(matcher: GrammarMatcher): void;
  /** Blocks until none of its matchers is pending, at most so long. */
  wait(matchers: readonly GrammarMatcher[], timeoutMs: number): void;
  /** The next tokens' masks of its matchers, all of them open or complete: `maskWords` words each, one after another. */
  copyMasks(matchers: readonly GrammarMatcher[], dest: Int32Array): void;
  /** Ends what the backend has running beside this thread. */
  close?(): void;
}

/** Native memory: `free` must be called. */
export interface Grammar {
  readonly status: GrammarStatus;
  /** Why it failed; of a ready one what the engine reads more loosely than written, or ''. */
  message(): string;
  /** A matcher at the start of the grammar, which must be ready. The matcher is pending. */
  createMatcher(): GrammarMatcher;
  free(): void;
}

/**
 * One sequence's place in a grammar, with the mask of its next token. Making that may take long, so it is done elsewhere: `advance` returns at once.
 * Native memory: `free` must be called.
 */
export interface GrammarMatcher {
  readonly status: MatcherStatus;
  /** Takes tokens; it must not be pending, and is afterwards. */
  advance(tokenIds: readonly number[]): void;
  free(): void;
}
