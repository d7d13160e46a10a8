import { describe, expect, test } from 'bun:test';
import type { ThinkingBudgetParams } from '../../src/sampling/sampling-params.ts';
import { ThinkingBudget } from '../../src/scheduler/thinking-budget.ts';

const [START, END, END_TOO] = [1, 2, 3];

function budget(params: Partial<ThinkingBudgetParams>, ...tokens: number[]): ThinkingBudget {
  const all = { maxTokens: 3, startsInside: true, numUsed: 0, starts: [[START]], ends: [[END], [END_TOO]], ...params };
  const thinking = new ThinkingBudget(all);
  for (const token of tokens) thinking.push(token);
  return thinking;
}

describe('the budget of a thinking', () => {
  test('is used up by its tokens, then the end is forced', () => {
    expect(budget({}, 7, 8).forcedTokenId).toBeNull();
    expect(budget({}, 7, 8).numFreeTokens).toBe(1);
    expect(budget({}, 7, 8, 9).forcedTokenId).toBe(END);
    expect(budget({}, 7, 8, 9, END).forcedTokenId).toBeNull();
    expect(budget({ maxTokens: 0 }).forcedTokenId).toBe(END);
  });

  test('is of no concern behind the end, whoever wrote it, even if there is another start', () => {
    for (const end of [END, END_TOO]) {
      const over = budget({}, 7, end, START, 8, 9, 10, 11);
      expect(over.forcedTokenId).toBeNull();
      expect(over.numFreeTokens).toBe(Number.POSITIVE_INFINITY);
    }
  });

  test('begins with the start mark, which does not count', () => {
    expect(budget({ startsInside: false }, 7, 8, 9, 10).forcedTokenId).toBeNull();
    expect(budget({ startsInside: false }, 7, 8, 9, 10).numFreeTokens).toBe(3);
    expect(budget({ startsInside: false }, 7, START, 8, 9, 10).forcedTokenId).toBe(END);
    expect(budget({}, START, 8, 9).forcedTokenId).toBeNull();
    // Not again and again: the thinking would have no end.
    expect(budget({}, START, START, START, START).forcedTokenId).toBe(END);
  });

  test('counts what the prompt has of it', () => {
    expect(budget({ numUsed: 2 }, 7).forcedTokenId).toBe(END);
    expect(budget({ numUsed: 9 }).forcedTokenId).toBe(END);
  });

  test('an end of several tokens is forced one by one, from where the model has got to', () => {
    const long = { ends: [[4, 4, 5]] };
    expect(budget(long, 7, 8, 9).forcedTokenId).toBe(4);
    expect(budget(long, 7, 8, 9, 4).forcedTokenId).toBe(4);
    expect(budget(long, 7, 8, 9, 4, 4).forcedTokenId).toBe(5);
    expect(budget(long, 7, 8, 9, 4, 4, 5).forcedTokenId).toBeNull();
    expect(budget(long, 7, 8, 4).forcedTokenId).toBe(4);
    expect(budget(long, 7, 4, 4).forcedTokenId).toBe(5);
    expect(budget(long, 4, 4, 5).numFreeTokens).toBe(Number.POSITIVE_INFINITY);
  });
});
