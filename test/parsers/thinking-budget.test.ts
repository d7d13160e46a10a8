import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { findReasoningFormat } from '../../src/parsers/reasoning/registry.ts';
import { resolveThinkingBudget, type ThinkingBudgetContext } from '../../src/parsers/reasoning/thinking-budget.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';

const tokenizer = await createTokenizer(join(import.meta.dir, '../../models/demo'), { mode: 'js' });
const [THINK, END, CALL] = [2042, 2043, 2044];

const resolve = (budget: number | null, context: Partial<ThinkingBudgetContext> = {}) =>
  resolveThinkingBudget(budget, {
    format: findReasoningFormat('qwen3'),
    tokenizer,
    promptTokenIds: Int32Array.of(70, 71),
    ...context,
  });

describe('resolveThinkingBudget', () => {
  test('has the marks as tokens, the end that is forced first', () => {
    expect(resolve(5, { start: 'inside' })).toEqual({
      ...{ maxTokens: 5, startsInside: true, numUsed: 0 },
      ...{ starts: [[THINK]], ends: [[END], [CALL]] },
    });
    const granite = resolve(5, { format: findReasoningFormat('granite') })!;
    expect(granite.starts).toHaveLength(2);
    expect(granite.ends[0]!.length).toBeGreaterThan(1);
  });

  test('nothing to limit: no budget, or an answer behind its thinking', () => {
    expect(resolve(null)).toBeNull();
    expect(resolve(-1, { format: null })).toBeNull();
    expect(resolve(5, { start: 'over' })).toBeNull();
  });

  test("without a format's word, the prompt's tokens tell where the output starts, and what it has thought", () => {
    const startOf = (...ids: number[]) => resolve(5, { promptTokenIds: Int32Array.from(ids) });
    expect(startOf(70, 71)).toMatchObject({ startsInside: false, numUsed: 0 });
    expect(startOf(70, THINK)).toMatchObject({ startsInside: true, numUsed: 0 });
    expect(startOf(THINK, 70, END, THINK, 71, 72)).toMatchObject({ startsInside: true, numUsed: 2 });
    expect(startOf(THINK, 70, END, 71)).toMatchObject({ startsInside: false, numUsed: 0 });
    expect(resolve(5, { start: 'inside', promptTokenIds: Int32Array.of(THINK, 70) })).toMatchObject({ numUsed: 1 });
  });

  test('a server that knows no end of thinking says so', () => {
    expect(() => resolve(-2)).toThrow('(parameter=thinking_token_budget, value=-2)');
    expect(() => resolve(5, { format: null })).toThrow('Please set --reasoning-parser');
    expect(() => resolve(5, { tokenizer: null })).toThrow('it has no tokenizer');
    expect(() => resolve(5, { format: findReasoningFormat('gpt_oss') })).toThrow('no mark for the end of thinking');
  });
});
