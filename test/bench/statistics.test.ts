import { describe, expect, test } from 'bun:test';
import { arrivalTimes, Gate } from '../../bench/load/arrivals.ts';
import { randomGamma, randomTokenIds, seededRandom } from '../../bench/random.ts';
import { mean, median, percentile, standardDeviation } from '../../bench/statistics.ts';

describe('statistics', () => {
  test('are those of numpy', () => {
    const values = [4, 1, 3, 2];
    expect(mean(values)).toBe(2.5);
    expect(median(values)).toBe(2.5);
    expect(standardDeviation(values)).toBeCloseTo(1.118034, 6);
    expect(percentile(values, 0)).toBe(1);
    expect(percentile(values, 90)).toBeCloseTo(3.7, 12);
    expect(percentile(values, 100)).toBe(4);
    expect(percentile([7], 99)).toBe(7);
    expect([mean([]), median([]), standardDeviation([])]).toEqual([0, 0, 0]);
  });
});

describe('gamma', () => {
  test.each([0.3, 1, 4])('shape %p has its mean and variance', (shape) => {
    const random = seededRandom(1);
    const draws = Array.from({ length: 20000 }, () => randomGamma(random, shape, 2));
    expect(mean(draws) / (shape * 2)).toBeCloseTo(1, 1);
    expect(standardDeviation(draws) ** 2 / (shape * 4)).toBeCloseTo(1, 0);
    expect(Math.min(...draws)).toBeGreaterThanOrEqual(0);
  });
});

describe('arrivals', () => {
  test.each([0.5, 1, 5])('have the rate, whatever the burstiness (%p)', (burstiness) => {
    const times = arrivalTimes(5000, 20, burstiness, seededRandom(2));
    expect(times[0]).toBe(0);
    expect(5000 / times.at(-1)! / 20).toBeCloseTo(1, 1);
    expect(times.every((time, i) => i === 0 || time >= times[i - 1]!)).toBe(true);
  });

  test('an infinite rate sends all at once', () => {
    expect(arrivalTimes(3, Number.POSITIVE_INFINITY, 1, seededRandom(0))).toEqual([0, 0, 0]);
  });

  test('a gate lets so many run, and all of them in the end', async () => {
    const gate = new Gate(2);
    let running = 0;
    let most = 0;
    const results = await Promise.all(
      [1, 2, 3, 4, 5].map((value) =>
        gate.run(async () => {
          most = Math.max(most, ++running);
          await Promise.resolve();
          running--;
          return value;
        }),
      ),
    );
    expect(results).toEqual([1, 2, 3, 4, 5]);
    expect(most).toBe(2);
  });
});

test('the same seed gives the same ids, within the vocabulary', () => {
  const ids = randomTokenIds(seededRandom(5), 1000, 2000);
  expect(ids).toEqual(randomTokenIds(seededRandom(5), 1000, 2000));
  expect(ids).not.toEqual(randomTokenIds(seededRandom(6), 1000, 2000));
  expect(Math.min(...ids)).toBeGreaterThanOrEqual(256);
  expect(Math.max(...ids)).toBeLessThan(2000);
});
