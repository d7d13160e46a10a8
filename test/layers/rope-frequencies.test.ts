import { describe, expect, test } from 'bun:test';
import { ropeFrequencies, ropeSwitchLength, rotaryDim } from '../../src/layers/rope-frequencies.ts';
import type { RopeParameters } from '../../src/layers/rope-parameters.ts';

const ROPE: RopeParameters = {
  ropeType: 'default',
  theta: 10_000,
  partialRotaryFactor: 1,
  factor: 1,
  originalMaxPositionEmbeddings: null,
  lowFreqFactor: 1,
  highFreqFactor: 4,
  betaFast: 32,
  betaSlow: 1,
  attentionFactor: null,
  mscale: null,
  mscaleAllDim: null,
  truncate: true,
  shortFactor: null,
  longFactor: null,
};

const MAX = 1024;
const frequencies = (rope: Partial<RopeParameters>, headDim: number, sequenceLength = 1) =>
  ropeFrequencies({ ...ROPE, ...rope }, { headDim, maxPositionEmbeddings: MAX, sequenceLength });

function expectClose(actual: Iterable<number>, expected: number[]): void {
  const values = [...actual];
  expect(values.length).toBe(expected.length);
  values.forEach((value, i) => {
    expect(Math.abs(value / expected[i]! - 1)).toBeLessThan(1e-9);
  });
}

describe('frequencies', () => {
  test('default', () => {
    const { inverseFrequencies, attentionFactor } = frequencies({}, 8);
    expectClose(inverseFrequencies, [1, 0.1, 0.01, 0.001]);
    expect(attentionFactor).toBe(1);
  });

  test('of a part of the head', () => {
    expectClose(frequencies({ partialRotaryFactor: 0.5 }, 8).inverseFrequencies, [1, 0.01]);
    expect(rotaryDim({ ...ROPE, partialRotaryFactor: 0.4 }, 80)).toBe(32);
    expect(() => rotaryDim({ ...ROPE, partialRotaryFactor: 0.4 }, 8)).toThrow('3 of 8 head elements');
  });

  test('linear', () => {
    expectClose(frequencies({ ropeType: 'linear', factor: 4 }, 4).inverseFrequencies, [0.25, 0.0025]);
  });

  test('dynamic: untouched up to the trained length, then a greater base', () => {
    const dynamic = { ropeType: 'dynamic', factor: 2 } as const;
    expectClose(frequencies(dynamic, 8, MAX).inverseFrequencies, [1, 0.1, 0.01, 0.001]);
    const base = 10_000 * (2 * 3 - 1) ** (8 / 6);
    expectClose(
      frequencies(dynamic, 8, 3 * MAX).inverseFrequencies,
      [0, 2, 4, 6].map((i) => base ** (-i / 8)),
    );
  });

  test('llama3: by wavelength', () => {
    const rope = { ropeType: 'llama3', theta: 500_000, factor: 8, originalMaxPositionEmbeddings: 64 } as const;
    const expected = Array.from({ length: 16 }, (_, i) => {
      const frequency = 500_000 ** (-i / 16);
      const wavelength = (2 * Math.PI) / frequency;
      if (wavelength < 64 / 4) return frequency;
      if (wavelength > 64) return frequency / 8;
      const smooth = (64 / wavelength - 1) / 3;
      return ((1 - smooth) * frequency) / 8 + smooth * frequency;
    });
    const { inverseFrequencies } = frequencies(rope, 32);
    expectClose(inverseFrequencies, expected);
    // All three branches are met.
    const base = (i: number) => 500_000 ** (-i / 16);
    const ratios = Array.from(inverseFrequencies, (frequency, i) => frequency / base(i));
    expect(ratios.some((ratio) => ratio > 0.13 && ratio < 0.99)).toBe(true);
    expect(ratios[0]).toBeCloseTo(1, 12);
    expect(ratios[15]).toBeCloseTo(1 / 8, 12);
  });

  test('yarn: a ramp over the pairs, and the attention factor', () => {
    // Pair indices that turn 32 and 1 times in 64 positions: 16 ln(64 / (2π t)) / (2 ln 10000) = -0.994 and 2.016.
    const rope = { ropeType: 'yarn', factor: 4, originalMaxPositionEmbeddings: 64 } as const;
    const ramp = (i: number, low: number, high: number) => Math.min(Math.max((i - low) / (high - low), 0), 1);
    const expected = (low: number, high: number) =>
      Array.from({ length: 8 }, (_, i) => {
        const frequency = 10_000 ** (-i / 8);
        return frequency * (1 - ramp(i, low, high)) + (frequency / 4) * ramp(i, low, high);
      });
    const { inverseFrequencies, attentionFactor } = frequencies(rope, 16);
    expectClose(inverseFrequencies, expected(0, 3));
    expect(attentionFactor).toBeCloseTo(1.138629436111989, 12);
    const high = (16 * Math.log(64 / (2 * Math.PI))) / (2 * Math.log(10_000));
    expectClose(frequencies({ ...rope, truncate: false }, 16).inverseFrequencies, expected(0, high));
  });

  test('yarn: attention factor given, or from mscale', () => {
    const yarn = { ropeType: 'yarn', factor: 40, originalMaxPositionEmbeddings: 64 } as const;
    expect(frequencies({ ...yarn, attentionFactor: 1.5 }, 16).attentionFactor).toBe(1.5);
    const ratio = (0.1 * 0.8 * Math.log(40) + 1) / (0.1 * 1.2 * Math.log(40) + 1);
    expect(frequencies({ ...yarn, mscale: 0.8, mscaleAllDim: 1.2 }, 16).attentionFactor).toBeCloseTo(ratio, 12);
  });

  test('longrope: short and long factors, and the attention factor', () => {
    const rope = {
      ropeType: 'longrope',
      factor: 8,
      originalMaxPositionEmbeddings: 64,
      shortFactor: [1, 2],
      longFactor: [4, 5],
    } as const;
    const options = { ...rope, shortFactor: [...rope.shortFactor], longFactor: [...rope.longFactor] };
    expectClose(frequencies(options, 4, 64).inverseFrequencies, [1, 0.005]);
    expectClose(frequencies(options, 4, 65).inverseFrequencies, [0.25, 0.002]);
    // sqrt(1 + ln 8 / ln 64) = sqrt(1.5)
    expect(frequencies(options, 4).attentionFactor).toBeCloseTo(Math.sqrt(1.5), 12);
    expect(() => frequencies({ ...options, shortFactor: [1] }, 4)).toThrow('1 factors; expected 2');
  });

  test('only longrope and dynamic depend on the length', () => {
    expect(ropeSwitchLength(ROPE, MAX)).toBeNull();
    expect(ropeSwitchLength({ ...ROPE, ropeType: 'dynamic' }, MAX)).toBe(MAX);
    expect(ropeSwitchLength({ ...ROPE, ropeType: 'longrope', originalMaxPositionEmbeddings: 64 }, MAX)).toBe(64);
  });
});
