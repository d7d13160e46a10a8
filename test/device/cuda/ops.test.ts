import { afterAll, describe, expect, test } from 'bun:test';
import { createDevice } from '../../../src/device/create-device.ts';
import { CUDA_KERNEL_OPS } from '../../../src/device/cuda/cuda-kernels.ts';
import { QUANTIZATION_CODES } from '../../../src/device/quantization-scheme.ts';
import { randomFloats } from '../harness.ts';
import { CUDA_DEVICE, openDeviceUnderTest, openReference } from './device-under-test.ts';
import { attentionCase, opCases } from './op-cases.ts';
import { firstDifference, runCase } from './op-runner.ts';

const cpu = openReference(2);
afterAll(() => cpu.close());

test('every op that CUDA has is compared here, but for sample', () => {
  const covered = new Set(opCases('bfloat16').flatMap(({ steps }) => steps.map(({ op }) => op)));
  expect(CUDA_KERNEL_OPS.filter((op) => !covered.has(op))).toEqual(['sample']);
});

test('a case gives back the memory that it took', () => {
  const before = cpu.memoryReport();
  const [each] = opCases('bfloat16').filter(({ steps }) => steps[0]!.op === 'add_lora');
  runCase(cpu, each!, 'bfloat16');
  expect(cpu.memoryReport()).toEqual(before);
});

for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
  describe(`CUDA kernels equal the CPU's, ${CUDA_DEVICE}, ${dtype}`, async () => {
    // Two types with every access checked, and one as the server runs it.
    const cuda = await openDeviceUnderTest({ activationDtype: dtype, checked: dtype !== 'float16' });
    afterAll(() => cuda.close());

    for (const testCase of opCases(dtype)) {
      test(testCase.name, () => {
        const expected = runCase(cpu, testCase, dtype);
        const actual = runCase(cuda, testCase, dtype);
        testCase.outputs.forEach((name, i) => {
          expect(firstDifference(actual[i]!, expected[i]!, dtype), name).toBeNull();
        });
      });
    }
  });
}

test('a row of attention has the same bits alone, in chunks, in a batch, and with its keys split over blocks', async () => {
  const cuda = await createDevice(CUDA_DEVICE);
  const shape = { heads: 4, kvHeads: 1, headDim: 16, blockSize: 16, window: 0 };
  const [whole] = runCase(cuda, attentionCase('whole', shape, [[600, 600]], 'bfloat16'), 'bfloat16');
  const row = shape.heads * shape.headDim;
  const allQueries = randomFloats(600 * row, 3);
  for (const queries of [1, 3, 40]) {
    // The same sequence, of which only the last queries are asked for: few rows and two ranges, which blocks share.
    const part = attentionCase('part', shape, [[600, queries]], 'bfloat16');
    const q = allQueries.slice((600 - queries) * row);
    const [alone] = runCase(cuda, { ...part, buffers: { ...part.buffers, q: { type: 'act', values: q } } }, 'bfloat16');
    expect(alone).toEqual(whole!.slice((600 - queries) * row));
  }
  cuda.close();
});

test.each([264, 201])('a row of an fp8 product has the same bits in every batch, k %i', async (k) => {
  const cuda = await createDevice(CUDA_DEVICE);
  const [n, rows] = [70, 70];
  const x = randomFloats(rows * k, 1);
  const w = { type: 'quantized', n, k, values: randomFloats(n * k, 2), scheme: 'fp8' } as const;
  const multiply = (m: number) => {
    const out = { type: 'f32', values: new Float32Array(m * n) } as const;
    const args = { x: 'x', ld_x: k, w: 'w', scheme: QUANTIZATION_CODES.fp8, bias: 0, out: 'out', ld_out: n, m, n, k };
    const buffers = { x: { type: 'act', values: x.slice(0, m * k) }, w, out } as const;
    const steps = [{ op: 'quantized_linear_f32', args }] as const;
    return runCase(cuda, { name: `${m} rows`, buffers, steps, outputs: ['out'] }, 'bfloat16')[0]!;
  };
  const all = multiply(rows);
  for (const m of [1, 3, 16, 17, 65]) expect(multiply(m)).toEqual(all.slice(0, m * n));
  cuda.close();
});
