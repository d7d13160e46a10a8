import type {
  AcceptResult,
  Grammar,
  GrammarBackend,
  GrammarMatcher,
  GrammarStatus,
} from '../../src/structured-output/grammar.ts';

/** Grammars whose only text is the tokens 1, 2, 3; compiled when the test says so. */
export class CountingBackend implements GrammarBackend {
  readonly maskWords = 1;
  status: GrammarStatus = 'compiling';
  /** Native objects that have not been freed. */
  live = 0;
  breaks = false;

  compile(): Grammar {
    this.live++;
    const backend = this;
    return {
      get status() {
        return backend.status;
      },
      message: () => 'bad grammar',
      createMatcher: () => this.matcher(),
      free: () => this.live--,
    };
  }

  fillMasks(matchers: readonly GrammarMatcher[], dest: Int32Array): number {
    if (this.breaks) return 0;
    matchers.forEach((matcher, i) => {
      dest[i] = 1 << (matcher as GrammarMatcher & { next: number }).next;
    });
    return matchers.length;
  }

  private matcher(): GrammarMatcher & { next: number } {
    this.live++;
    return {
      next: 1,
      accept(tokenId): AcceptResult {
        if (tokenId !== this.next) return 'refused';
        this.next++;
        return this.next === 4 ? 'complete' : 'open';
      },
      free: () => this.live--,
    };
  }
}
