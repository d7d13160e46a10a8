import type { ThinkingBudgetParams } from '../sampling/sampling-params.ts';

/**
 * Counts the tokens of one output's thinking, and says when its end has to be forced: `thinking_token_budget`. Marks are found as token sequences; those
 * that end the thinking are not counted apart from it until they are whole, so a mark that has been begun by the model when the budget is used up is completed.
 */
export class ThinkingBudget {
  private state: 'marked' | 'inside' | 'over';
  private numUsed: number;
  /** The last tokens, as many as the longest mark has; those of an earlier state don't count. */
  private tail: number[] = [];
  private readonly maxMarkLength: number;
  /** Behind a prompt that leaves it to the model to begin the thinking, or has done so itself, a start mark is passed over. */
  private maySkipStart: boolean;

  constructor(private readonly params: ThinkingBudgetParams) {
    this.state = params.startsInside ? 'inside' : 'marked';
    this.numUsed = params.numUsed;
    this.maySkipStart = params.numUsed === 0;
    this.maxMarkLength = Math.max(...[...params.starts, ...params.ends].map((mark) => mark.length));
  }

  /** The next output token. */
  push(tokenId: number): void {
    if (this.state === 'over') return;
    if (this.tail.push(tokenId) > this.maxMarkLength) this.tail.shift();
    const { starts, ends } = this.params;
    if (this.state === 'marked') {
      if (starts.some((mark) => this.endsWith(mark, mark.length))) this.enter('inside');
    } else {
      this.numUsed++;
      if (ends.some((mark) => this.endsWith(mark, mark.length))) this.enter('over');
      else if (this.maySkipStart && starts.some((mark) => this.isAll(mark))) this.enter('inside');
    }
  }

  /** Tokens that may come before one could have to be forced; at least that many, since a mark may end the thinking. */
  get numFreeTokens(): number {
    return this.state === 'over' ? Number.POSITIVE_INFINITY : Math.max(0, this.params.maxTokens - this.numUsed);
  }

  /** What the next token must be; null: anything. */
  get forcedTokenId(): number | null {
    if (this.state !== 'inside' || this.numFreeTokens > 0) return null;
    const end = this.params.ends[0]!;
    let numThere = end.length - 1;
    while (!this.endsWith(end, numThere)) numThere--;
    return end[numThere]!;
  }

  private enter(state: 'inside' | 'over'): void {
    this.state = state;
    this.numUsed = 0;
    this.tail = [];
    this.maySkipStart = false;
  }

  private isAll(mark: readonly number[]): boolean {
    return mark.length === this.numUsed && this.endsWith(mark, mark.length);
  }

  /** Whether the last tokens are the first `length` ones of a mark. */
  private endsWith(mark: readonly number[], length: number): boolean {
    const from = this.tail.length - length;
    for (let i = 0; i < length; i++) if (this.tail[from + i] !== mark[i]) return false;
    return true;
  }
}
