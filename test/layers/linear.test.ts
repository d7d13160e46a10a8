import { describe, expect, test } from 'bun:test';
import type { LayerContext } from '../../src/layers/layer-context.ts';
import {
  ColumnParallelLinear,
  fusedSources,
  headsOfRank,
  MergedColumnParallelLinear,
  QKVParallelLinear,
  RowParallelLinear,
  separateSources,
} from '../../src/layers/linear.ts';
import { unquantizedLinearMethod } from '../../src/layers/linear-method.ts';
import { Workspace } from '../../src/layers/workspace.ts';
import { MemoryWeights } from '../models/memory-weights.ts';
import { ReferenceDevice } from '../models/reference-device.ts';
import { floats } from '../models/reference-values.ts';

interface AnyLinear {
  readonly inFeatures: number;
  readonly outFeatures: number;
  forward(x: number, out: number, numTokens: number): void;
}

const NUM_TOKENS = 2;

function contextOf(weights: MemoryWeights, rank = 0, size = 1): LayerContext & { device: ReferenceDevice } {
  const device = new ReferenceDevice();
  return {
    device,
    weights,
    dtype: 'float32',
    linearMethod: unquantizedLinearMethod,
    tensorParallel: { rank, size },
    workspace: new Workspace(device),
  };
}

/** Output rows of a layer for input rows. */
function apply(context: LayerContext, linear: AnyLinear, x: number[][]): number[][] {
  const input = context.device.alloc(x.length * linear.inFeatures * 4, 'test');
  const output = context.device.alloc(x.length * linear.outFeatures * 4, 'test');
  floats(input, x.length * linear.inFeatures).set(x.flat());
  linear.forward(input, output, x.length);
  return x.map((_, row) => [...floats(output + row * linear.outFeatures * 4, linear.outFeatures)]);
}

/** What the whole matrix `name` gives, by the definition. */
function multiply(weights: MemoryWeights, name: string, x: number[], bias = false): number[] {
  const matrix = weights.values(`${name}.weight`);
  const rows = matrix.length / x.length;
  return Array.from({ length: rows }, (_, row) =>
    Math.fround(
      x.reduce(
        (sum, value, col) => sum + value * matrix[row * x.length + col]!,
        bias ? weights.values(`${name}.bias`)[row]! : 0,
      ),
    ),
  );
}

const input = (size: number) =>
  Array.from({ length: NUM_TOKENS }, (_, row) => Array.from({ length: size }, (_, i) => ((row + 2) * (i + 1)) / 8));

describe('one rank', () => {
  const weights = new MemoryWeights()
    .setRandom('q.weight', [8, 3])
    .setRandom('k.weight', [4, 3])
    .setRandom('v.weight', [4, 3])
    .setRandom('q.bias', [8])
    .setRandom('k.bias', [4])
    .setRandom('v.bias', [4]);
  const heads = { numHeads: 4, numKvHeads: 2, headDim: 2 };

  test('qkv rows are query, key, value, each with its bias', () => {
    const context = contextOf(weights);
    const qkv = new QKVParallelLinear(context, separateSources({ q: 8, k: 4, v: 4 }), 3, heads, true);
    const x = input(3);
    expect(apply(context, qkv, x)).toEqual(
      x.map((row) => ['q', 'k', 'v'].flatMap((name) => multiply(weights, name, row, true))),
    );
  });

  test('a stacked checkpoint gives the same as separate matrices', () => {
    const stacked = new MemoryWeights().set(
      'qkv.weight',
      [16, 3],
      ['q', 'k', 'v'].flatMap((name) => [...weights.values(`${name}.weight`)]),
    );
    for (const rank of [0, 1]) {
      const separate = contextOf(weights, rank, 2);
      const fused = contextOf(stacked, rank, 2);
      const x = input(3);
      const expected = new QKVParallelLinear(separate, separateSources({ q: 8, k: 4, v: 4 }), 3, heads, false);
      const actual = new QKVParallelLinear(fused, fusedSources('qkv', [8, 4, 4]), 3, heads, false);
      expect(apply(fused, actual, x)).toEqual(apply(separate, expected, x));
    }
  });
});

describe('two ranks', () => {
  const weights = new MemoryWeights()
    .setRandom('gate.weight', [6, 4])
    .setRandom('up.weight', [6, 4])
    .setRandom('gate.bias', [6])
    .setRandom('up.bias', [6])
    .setRandom('down.weight', [4, 6])
    .setRandom('down.bias', [4])
    .setRandom('q.weight', [8, 4])
    .setRandom('k.weight', [4, 4])
    .setRandom('v.weight', [4, 4]);
  const ranks = [0, 1].map((rank) => contextOf(weights, rank, 2));

  test('a column split concatenates to the whole', () => {
    const x = input(4);
    const halves = ranks.map((context) => apply(context, new ColumnParallelLinear(context, 'gate', 4, 6, true), x));
    expect(x.map((_, row) => halves.flatMap((half) => half[row]!))).toEqual(
      x.map((row) => multiply(weights, 'gate', row, true)),
    );
  });

  test('merged columns are split each by itself', () => {
    const x = input(4);
    const halves = ranks.map((context) => {
      const linear = new MergedColumnParallelLinear(context, separateSources({ gate: 6, up: 6 }), 4, true);
      return apply(context, linear, x);
    });
    x.forEach((row, i) => {
      const [gate, up] = [multiply(weights, 'gate', row, true), multiply(weights, 'up', row, true)];
      expect(halves[0]![i]).toEqual([...gate.slice(0, 3), ...up.slice(0, 3)]);
      expect(halves[1]![i]).toEqual([...gate.slice(3), ...up.slice(3)]);
    });
  });

  test('a row split adds up to the whole, the bias once', () => {
    const x = input(6);
    const halves = ranks.map((context, rank) =>
      apply(
        context,
        new RowParallelLinear(context, 'down', 6, 4, true),
        x.map((row) => row.slice(rank * 3, rank * 3 + 3)),
      ),
    );
    x.forEach((row, i) => {
      multiply(weights, 'down', row, true).forEach((value, col) => {
        expect(halves[0]![i]![col]! + halves[1]![i]![col]!).toBeCloseTo(value, 5);
      });
    });
  });

  test('each rank has its heads', () => {
    const x = input(4);
    const heads = { numHeads: 4, numKvHeads: 2, headDim: 2 };
    ranks.forEach((context, rank) => {
      const qkv = new QKVParallelLinear(context, separateSources({ q: 8, k: 4, v: 4 }), 4, heads, false);
      expect(apply(context, qkv, x)).toEqual(
        x.map((row) => [
          ...multiply(weights, 'q', row).slice(rank * 4, rank * 4 + 4),
          ...multiply(weights, 'k', row).slice(rank * 2, rank * 2 + 2),
          ...multiply(weights, 'v', row).slice(rank * 2, rank * 2 + 2),
        ]),
      );
    });
  });

  test('a dimension that does not split is an error', () => {
    expect(() => new ColumnParallelLinear(contextOf(weights, 0, 4), 'gate', 4, 6, false)).toThrow(
      'Output size of gate is 6; expected a multiple of the tensor parallel size, which is 4.',
    );
  });
});

describe('more ranks than key-value heads', () => {
  const weights = new MemoryWeights()
    .setRandom('q.weight', [8, 3])
    .setRandom('k.weight', [4, 3])
    .setRandom('v.weight', [4, 3]);
  const heads = { numHeads: 4, numKvHeads: 2, headDim: 2 };

  test('neighbouring ranks keep the same kv head', () => {
    const x = input(3);
    for (const rank of [0, 1, 2, 3]) {
      const context = contextOf(weights, rank, 4);
      const qkv = new QKVParallelLinear(context, separateSources({ q: 8, k: 4, v: 4 }), 3, heads, false);
      const kvStart = rank < 2 ? 0 : 2;
      expect(apply(context, qkv, x)).toEqual(
        x.map((row) => [
          ...multiply(weights, 'q', row).slice(rank * 2, rank * 2 + 2),
          ...multiply(weights, 'k', row).slice(kvStart, kvStart + 2),
          ...multiply(weights, 'v', row).slice(kvStart, kvStart + 2),
        ]),
      );
    }
  });

  test('that do not divide evenly are refused', () => {
    expect(() => headsOfRank({ numHeads: 12, numKvHeads: 2 }, { rank: 0, size: 3 })).toThrow(
      'Tensor parallel size is 3; expected a divisor or a multiple of the 2 key-value heads.',
    );
  });
});
