import { dlopen, type Pointer, ptr, toArrayBuffer } from 'bun:ffi';
import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { ensureCudaEmulation } from '../../scripts/build-cuda.ts';
import { CudaRuntime } from '../../src/device/cuda/cuda-runtime.ts';
import { probeLibrary } from './probe-library.ts';

const { cudart } = await ensureCudaEmulation({ quiet: true });
const runtime = new CudaRuntime(cudart);
runtime.selectDevice(0);
const stream = runtime.createStream();
const { symbols: probe } = dlopen(await probeLibrary(), {
  probe_mma: { args: ['ptr', 'ptr', 'ptr', 'ptr'], returns: 'i32' },
  probe_ldmatrix: { args: ['ptr', 'ptr', 'ptr', 'ptr'], returns: 'i32' },
});

const { cudaMemcpyAsync, cudaStreamSynchronize } = runtime.functions;
const pointer = (address: number) => address as Pointer;

function upload(values: Float32Array | Int32Array): number {
  const address = runtime.malloc(values.byteLength);
  runtime.check('cudaMemcpyAsync', cudaMemcpyAsync(address, ptr(values), values.byteLength, 1, stream));
  return address;
}

function download<View extends Float32Array | Int32Array>(address: number, into: View): View {
  runtime.check('cudaMemcpyAsync', cudaMemcpyAsync(ptr(into), address, into.byteLength, 2, stream));
  return into;
}

/** Offset of a lane's value in a column-major matrix: a CuTe layout, of modes (4, 8) for lanes and 2s for values, by its strides. */
function layout(laneStrides: readonly [number, number], valueStrides: readonly number[]) {
  return (lane: number, value: number) =>
    (lane % 4) * laneStrides[0] +
    Math.floor(lane / 4) * laneStrides[1] +
    valueStrides.reduce((sum, stride, bit) => sum + ((value >> bit) & 1) * stride, 0);
}

/** NVIDIA's own statement of mma.m16n8k16's fragments: CUTLASS, include/cute/atom/mma_traits_sm80.hpp, SM80_16x8x16_F32F16F16F32_TN. */
const A = layout([32, 1], [16, 8, 128]);
const B = layout([16, 1], [8, 64]);
const C = layout([32, 1], [16, 8]);

describe('instructions on the emulation', () => {
  test('mma.m16n8k16 has the fragments that CUTLASS gives it', () => {
    // Small whole numbers, so that every order of summation gives the same bits.
    const numbers = (length: number, step: number) => Float32Array.from({ length }, (_, i) => ((i * step) % 17) - 8);
    const [a, b] = [numbers(16 * 16, 7), numbers(8 * 16, 5)];
    // A is M by K and B is N by K, both with the first index fastest.
    const laneA = Float32Array.from({ length: 256 }, (_, i) => a[A(i >> 3, i & 7)]!);
    const laneB = Float32Array.from({ length: 128 }, (_, i) => b[B(i >> 2, i & 3)]!);
    const out = upload(new Float32Array(128));
    expect(probe.probe_mma(pointer(stream), pointer(upload(laneA)), pointer(upload(laneB)), pointer(out))).toBe(0);
    const c = download(out, new Float32Array(128));
    for (let lane = 0; lane < 32; lane++) {
      for (let value = 0; value < 4; value++) {
        const [m, n] = [C(lane, value) % 16, Math.floor(C(lane, value) / 16)];
        let sum = 0;
        for (let k = 0; k < 16; k++) sum += a[m + 16 * k]! * b[n + 8 * k]!;
        expect(c[lane * 4 + value]).toBe(sum);
      }
    }
  });

  test('ldmatrix gives lane 4r + c the elements 2c and 2c + 1 of row r, and .trans those of column r', () => {
    const matrices = Int32Array.from({ length: 256 }, (_, i) => i);
    const [plain, transposed] = [upload(new Int32Array(128)), upload(new Int32Array(64))];
    probe.probe_ldmatrix(pointer(stream), pointer(upload(matrices)), pointer(plain), pointer(transposed));
    const [four, two] = [download(plain, new Int32Array(128)), download(transposed, new Int32Array(64))];
    const packed = (low: number, high: number) => low | (high << 16);
    for (let lane = 0; lane < 32; lane++) {
      const [r, c] = [lane >> 2, (lane % 4) * 2];
      for (let i = 0; i < 4; i++) expect(four[lane * 4 + i]).toBe(packed(64 * i + 8 * r + c, 64 * i + 8 * r + c + 1));
      for (let i = 0; i < 2; i++) expect(two[lane * 2 + i]).toBe(packed(64 * i + 8 * c + r, 64 * i + 8 * (c + 1) + r));
    }
  });
});

test('work waits for a synchronization: without one its results are not there', () => {
  const [from, to] = [runtime.hostAlloc(64), runtime.malloc(64)];
  const host = new Int32Array(toArrayBuffer(pointer(from), 0, 64));
  host.fill(7);
  const back = runtime.hostAlloc(64);
  cudaMemcpyAsync(to, from, 64, 1, stream);
  cudaMemcpyAsync(back, to, 64, 2, stream);
  const result = new Int32Array(toArrayBuffer(pointer(back), 0, 64));
  expect(result[0]).toBe(0);
  // Pinned memory is read when the copy is carried out, so what is written before that is what is copied.
  host.fill(8);
  expect(cudaStreamSynchronize(stream)).toBe(0);
  expect(result[0]).toBe(8);
});

/** Runs one mistake of probe.cu in a process of its own. */
function make(mistake: number, order = 'forward') {
  const child = Bun.spawnSync([process.execPath, join(import.meta.dir, 'probe.ts'), String(mistake)], {
    env: { ...process.env, BAO_CUDA_EMULATION_ORDER: order },
  });
  const [code, values] = child.stdout.toString().split('\n');
  return { code: Number(code), values: values!.split(',').map(Number), report: child.stderr.toString() };
}

describe('mistakes that the emulation shows', () => {
  test.each([
    [0, 'thread (3, 0, 0): access of 4 bytes'],
    [1, 'thread (0, 0, 0): misaligned access of 4 bytes'],
    [2, 'thread (5, 0, 0): __shfl_xor_sync with a mask that names lanes which are gone'],
    [3, 'thread (1, 0, 0): __shfl_xor_sync with a mask that leaves out the calling lane'],
  ])('mistake %i is reported with kernel, block and thread', (mistake, text) => {
    const { code, report } = make(mistake);
    expect(code).toBe(700);
    expect(report).toContain(`kernel probe_mistake, block (0, 0, 0), ${text}`);
  });

  test('a read of cp.async data before the wait, or of shared memory that nobody wrote, gives NaN', () => {
    expect(make(4).values[0]).toBeNaN();
    expect(make(5).values[0]).toBeNaN();
  });

  test('a missing __syncthreads shows in one of the two orders of threads', () => {
    const expected = Array.from({ length: 64 }, (_, i) => 63 - i);
    const results = ['forward', 'reverse'].map((order) => make(6, order).values);
    expect(results.every((values) => values.join() === expected.join())).toBe(false);
  });
});
