import { expect, test } from 'bun:test';
import { LayerNorm } from '../../src/layers/layer-norm.ts';
import { unquantizedLinearMethod } from '../../src/layers/linear-method.ts';
import { Workspace } from '../../src/layers/workspace.ts';
import { MemoryWeights } from '../models/memory-weights.ts';
import { ReferenceDevice } from '../models/reference-device.ts';
import { floats } from '../models/reference-values.ts';

test('weight and bias go by the names of today, or of the first BERTs', () => {
  for (const [weight, bias] of [
    ['weight', 'bias'],
    ['gamma', 'beta'],
  ]) {
    const device = new ReferenceDevice();
    const weights = new MemoryWeights().set(`norm.${weight}`, [2], [2, 3]).set(`norm.${bias}`, [2], [10, 20]);
    const context = {
      device,
      weights,
      dtype: 'float32',
      linearMethod: unquantizedLinearMethod,
      tensorParallel: { rank: 0, size: 1 },
      workspace: new Workspace(device),
    } as const;
    const x = device.alloc(8, 'test');
    floats(x, 2).set([-5, 5]);
    new LayerNorm(context, 'norm', 2, 0, true).forward(x, x, 1);
    expect([...floats(x, 2)]).toEqual([8, 23]);
  }
});
