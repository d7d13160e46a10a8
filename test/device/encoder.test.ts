import { afterAll, describe, expect, test } from 'bun:test';
import { ReferenceDevice } from '../models/reference-device.ts';
import { encoderAttentionCase, encoderCases } from './cuda/encoder-op-cases.ts';
import { type BufferSpec, runCase } from './cuda/op-runner.ts';
import { availableIsas, maxError, openDevice, randomFloats } from './harness.ts';

const CASES = encoderCases();
const reference = new ReferenceDevice();

for (const isa of availableIsas()) {
  describe(`encoder and pooling ops, ${isa}`, () => {
    const device = openDevice(2, isa);
    afterAll(() => device.close());

    for (const testCase of CASES) {
      test(testCase.name, () => {
        const expected = runCase(reference, testCase, 'float32');
        runCase(device, testCase, 'float32').forEach((actual, i) => {
          expect(maxError(actual, expected[i]!), testCase.outputs[i]).toBeLessThan(3e-6);
        });
      });
    }

    test('a sequence has the same bits alone and in a batch', () => {
      const shape = { heads: 2, kvHeads: 2, headDim: 24, reach: 0 };
      const row = 6 * 24 + 5;
      const of = (lengths: number[], skip: number) => {
        const testCase = encoderAttentionCase('', shape, lengths);
        const tokens = lengths.reduce((sum, length) => sum + length, 0);
        const slice = (seed: number): BufferSpec => ({
          type: 'act',
          values: randomFloats((skip + tokens) * row, seed).slice(skip * row),
        });
        const buffers = { ...testCase.buffers, q: slice(1), k: slice(2), v: slice(3) };
        return runCase(device, { ...testCase, buffers }, 'float32')[0]!;
      };
      const together = of([70, 130, 5], 0);
      const out = 2 * 24 + 3;
      expect([...together.slice(70 * out, 200 * out)]).toEqual([...of([130], 70)]);
    });
  });
}
