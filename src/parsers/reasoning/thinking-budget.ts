import { parameterError } from '../../errors/parameter-error.ts';
import { ValidationError } from '../../errors/validation-error.ts';
import type { ThinkingBudgetParams } from '../../sampling/sampling-params.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import type { ReasoningFormat, ReasoningStart } from './reasoning-parser.ts';

export interface ThinkingBudgetContext {
  /** That of `--reasoning-parser`; null: none. */
  format: ReasoningFormat | null;
  tokenizer: Tokenizer | null;
  promptTokenIds: Int32Array;
  /** Where the output starts; left out where only the prompt's tokens can tell. */
  start?: ReasoningStart;
}

const FIELD = 'thinking_token_budget';

/**
 * `thinking_token_budget` with the marks of the model's thinking; null where there is nothing to limit.
 *
 * @throws ValidationError for a number below -1, and where the server can't know what thinking is
 */
export function resolveThinkingBudget(
  budget: number | null | undefined,
  context: ThinkingBudgetContext,
): ThinkingBudgetParams | null {
  if (budget == null || budget === -1) return null;
  if (budget < -1) {
    throw parameterError('`thinking_token_budget` must be a non-negative integer or -1 for unlimited.', FIELD, budget);
  }
  const marks = thinkingMarks(context);
  if (context.start === 'over') return null;
  const numOpen = numOpenTokens(context.promptTokenIds, marks);
  const startsInside = context.start === 'inside' || (context.start === undefined && numOpen !== null);
  return { ...marks, maxTokens: budget, startsInside, numUsed: startsInside ? (numOpen ?? 0) : 0 };
}

/** Whether this server can limit its model's thinking. */
export function canLimitThinking(format: ReasoningFormat | null, tokenizer: Tokenizer | null): boolean {
  return format?.marks !== undefined && tokenizer !== null;
}

type Marks = Pick<ThinkingBudgetParams, 'starts' | 'ends'>;

function thinkingMarks({ format, tokenizer }: ThinkingBudgetContext): Marks {
  if (format === null) {
    throw new ValidationError(
      'thinking_token_budget is set but the server has no reasoning parser. Please set --reasoning-parser to use thinking_token_budget.',
      FIELD,
    );
  }
  if (tokenizer === null || format.marks === undefined) {
    const why =
      tokenizer === null ? 'it has no tokenizer' : 'its --reasoning-parser has no mark for the end of thinking';
    throw new ValidationError(`\`${FIELD}\` is not supported by this server: ${why}.`, FIELD);
  }
  const { starts, ends, alsoEnd = [] } = format.marks;
  const encode = (text: string) => [...tokenizer.encode(text, { addSpecialTokens: false })];
  return { starts: starts.map(encode), ends: [...ends, ...alsoEnd].map(encode) };
}

/** Tokens behind the prompt's last start mark; null where that is closed, or there is none. */
function numOpenTokens(prompt: Int32Array, { starts, ends }: Marks): number | null {
  for (let end = prompt.length; end > 0; end--) {
    const endsWith = (mark: readonly number[]) => mark.every((id, i) => prompt[end - mark.length + i] === id);
    if (ends.some(endsWith)) return null;
    if (starts.some(endsWith)) return prompt.length - end;
  }
  return null;
}
