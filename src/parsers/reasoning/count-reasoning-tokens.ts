import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import type { ReasoningContext, ReasoningFormat, ReasoningStart } from './reasoning-parser.ts';

/** The marks as token ids. */
export interface ReasoningTokens {
  start: ReasoningStart;
  starts: ReadonlySet<number>;
  ends: ReadonlySet<number>;
  eos: ReadonlySet<number>;
}

/** null for a format without marks, or with marks that are not one token each: then nothing can be counted. */
export function reasoningTokens(
  { marks }: ReasoningFormat,
  context: ReasoningContext,
  tokenizer: Tokenizer,
  eosTokenIds: readonly number[],
): ReasoningTokens | null {
  if (marks === undefined) return null;
  const idsOf = (texts: readonly string[]) => {
    const encoded = texts.map((text) => tokenizer.encode(text, { addSpecialTokens: false }));
    return new Set(encoded.filter((ids) => ids.length === 1).map((ids) => ids[0]!));
  };
  const starts = idsOf(marks.starts);
  const ends = idsOf(marks.ends);
  if (starts.size < marks.starts.length || ends.size < marks.ends.length) return null;
  const allEnds = new Set([...ends, ...idsOf(marks.alsoEnd ?? [])]);
  return { start: marks.start(context), starts, ends: allEnds, eos: new Set(eosTokenIds) };
}

/** Counts the tokens of one choice's reasoning as they come: those in front of the end mark, but for the marks and what ends the whole answer. */
export class ReasoningTokenCounter {
  count = 0;
  #state: ReasoningStart;

  constructor(private readonly tokens: ReasoningTokens) {
    this.#state = tokens.start;
  }

  push(tokenIds: readonly number[]): void {
    const { starts, ends, eos } = this.tokens;
    for (const id of tokenIds) {
      if (this.#state === 'over') return;
      if (starts.has(id)) this.#state = 'inside';
      else if (this.#state === 'marked') continue;
      else if (ends.has(id)) this.#state = 'over';
      else if (!eos.has(id)) this.count++;
    }
  }
}
