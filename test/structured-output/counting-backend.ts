import type {
  Grammar,
  GrammarBackend,
  GrammarMatcher,
  GrammarStatus,
  MatcherStatus,
} from '../../src/structured-output/grammar.ts';

/** Grammars whose only text is the tokens 1, 2, 3; compiled when the test says so. */
export class CountingBackend implements GrammarBackend {
  readonly maskWords = 1;
  status: GrammarStatus = 'compiling';
  /** Native objects that have not been freed. */
  live = 0;
  /** No further mask can be made. */
  breaks = false;
  /** Masks are looked for so many times before they are ready. */
  looksUntilReady = 0;
  /** Masks are made at once where the thread has time. */
  worksNow = false;
  /** Milliseconds for which masks were waited for, each time. */
  readonly waits: number[] = [];

  compile(): Grammar {
    this.live++;
    const backend = this;
    return {
      get status() {
        return backend.status;
      },
      message: () => 'bad grammar',
      createMatcher: () => new CountingMatcher(backend),
      free: () => this.live--,
    };
  }

  workNow(matcher: GrammarMatcher): void {
    if (this.worksNow) (matcher as CountingMatcher).finish();
  }

  wait(_matchers: readonly GrammarMatcher[], timeoutMs: number): void {
    this.waits.push(timeoutMs);
  }

  copyMasks(matchers: readonly GrammarMatcher[], dest: Int32Array): void {
    matchers.forEach((matcher, i) => {
      dest[i] = (matcher as CountingMatcher).mask();
    });
  }
}

class CountingMatcher implements GrammarMatcher {
  private next = 1;
  private refused = false;
  private numLooks = 0;

  constructor(private readonly backend: CountingBackend) {
    backend.live++;
  }

  get status(): MatcherStatus {
    if (this.numLooks < this.backend.looksUntilReady) {
      this.numLooks++;
      return 'pending';
    }
    if (this.refused || this.backend.breaks) return 'refused';
    return this.next === 4 ? 'complete' : 'open';
  }

  advance(tokenIds: readonly number[]): void {
    this.numLooks = 0;
    for (const tokenId of tokenIds) {
      this.refused ||= tokenId !== this.next;
      this.next++;
    }
  }

  finish(): void {
    this.numLooks = this.backend.looksUntilReady;
  }

  mask(): number {
    if (this.numLooks < this.backend.looksUntilReady) throw new Error('there is no mask yet');
    return 1 << this.next;
  }

  free(): void {
    this.backend.live--;
  }
}
