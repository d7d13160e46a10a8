import { describe, expect, test } from 'bun:test';
import type { LayerContext } from '../../src/layers/layer-context.ts';
import { type LinearMethod, unquantizedLinearMethod } from '../../src/layers/linear-method.ts';
import { type FeedForward, gatedActivation } from '../../src/layers/mlp.ts';
import { MixtureOfExperts, separateExperts } from '../../src/layers/moe.ts';
import { Router, type RouterOptions } from '../../src/layers/router.ts';
import { Workspace } from '../../src/layers/workspace.ts';
import { MemoryWeights } from '../models/memory-weights.ts';
import { ReferenceDevice } from '../models/reference-device.ts';
import { floats } from '../models/reference-values.ts';

const SIZES = { numExperts: 3, hiddenSize: 2, intermediateSize: 1 };

const ROUTER: RouterOptions = {
  prefix: 'gate',
  hiddenSize: SIZES.hiddenSize,
  bias: false,
  numExperts: SIZES.numExperts,
  topK: 1,
  scoring: 'softmax',
  renormalize: true,
  maxNumTokens: 4,
};

/** Expert e gives e + 1 times silu(x[0]) * x[0] in its second element; the router sends a token to the expert of x[1]'s sign. */
function weights(): MemoryWeights {
  const memory = new MemoryWeights().set('gate.weight', [3, 2], [0, -9, 0, 0, 0, 9]);
  for (let expert = 0; expert < SIZES.numExperts; expert++) {
    memory
      .set(`e${expert}.gate.weight`, [1, 2], [1, 0])
      .set(`e${expert}.up.weight`, [1, 2], [1, 0])
      .set(`e${expert}.down.weight`, [2, 1], [0, expert + 1]);
  }
  return memory;
}

function contextOf(linearMethod: LinearMethod = unquantizedLinearMethod): LayerContext & { device: ReferenceDevice } {
  const device = new ReferenceDevice();
  return {
    device,
    weights: weights(),
    dtype: 'float32',
    linearMethod,
    tensorParallel: { rank: 0, size: 1 },
    workspace: new Workspace(device),
  };
}

function createMixture(context: LayerContext, shared: FeedForward | null = null): MixtureOfExperts {
  const experts = separateExperts(context, SIZES, (expert) => ({
    gate: `e${expert}.gate`,
    up: `e${expert}.up`,
    down: `e${expert}.down`,
  }));
  const { intermediateSize } = SIZES;
  return new MixtureOfExperts(context, {
    router: ROUTER,
    intermediateSize,
    experts,
    activation: gatedActivation('silu'),
    shared,
  });
}

function outputs(context: LayerContext, mixture: MixtureOfExperts, rows: number[][]): number[][] {
  context.workspace.allocate();
  const x = context.device.alloc(rows.length * 8, 'test');
  floats(x, rows.length * 2).set(rows.flat());
  mixture.forward(x, x, rows.length);
  return rows.map((_, row) => [...floats(x + row * 8, 2)]);
}

const silu = (x: number) => x / (1 + Math.exp(-x));

describe('MixtureOfExperts', () => {
  test("gives each token its expert's output, in place", () => {
    const context = contextOf();
    const [first, second, third] = outputs(context, createMixture(context), [
      [1, 1],
      [2, -1],
      [3, 0],
    ]);
    expect(first![1]).toBeCloseTo(3 * silu(1), 5);
    expect(second![1]).toBeCloseTo(1 * silu(2) * 2, 5);
    // Equal logits: the lowest expert.
    expect(third![1]).toBeCloseTo(1 * silu(3) * 3, 5);
  });

  test('adds what the shared MLP gives for the same input', () => {
    const context = contextOf();
    const identity: FeedForward = { forward: (x, out, numTokens) => context.device.ops.add(x, x, out, numTokens * 2) };
    const [only] = outputs(context, createMixture(context, identity), [[1, 1]]);
    expect(only![0]).toBeCloseTo(2, 5);
    expect(only![1]).toBeCloseTo(2 + 3 * silu(1), 5);
  });

  test('names a linear method that has no experts', () => {
    const { loadExperts: _, ...method } = unquantizedLinearMethod;
    const context = contextOf({ ...method, name: 'int8' });
    expect(() => createMixture(context)).toThrow('"int8"');
  });
});

describe('Router', () => {
  const build = (options: Partial<RouterOptions>) => () => new Router(contextOf(), { ...ROUTER, ...options });

  test('refuses more experts of a token than there are to choose from', () => {
    expect(build({ topK: 4 })).toThrow("gate: can't choose 4 experts of a token; expected at most the 3");
    expect(build({ topK: 2, groups: { count: 3, topK: 1 } })).toThrow('at most the 1');
  });

  test('refuses groups that are not equal, or more than there are', () => {
    expect(build({ groups: { count: 2, topK: 1 } })).toThrow('1 of 2 groups of 3 experts');
    expect(build({ groups: { count: 3, topK: 4 } })).toThrow('4 of 3 groups');
  });
});
