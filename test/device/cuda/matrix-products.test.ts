import { ptr } from 'bun:ffi';
import { afterAll, describe, expect, test } from 'bun:test';
import { createDevice } from '../../../src/device/create-device.ts';
import { Cublas } from '../../../src/device/cuda/cublas.ts';
import { CublasLt } from '../../../src/device/cuda/cublas-lt.ts';
import { CudaRuntime } from '../../../src/device/cuda/cuda-runtime.ts';
import { DTYPE_CODES } from '../../../src/device/dtype.ts';
import { randomFloats, rounded } from '../harness.ts';
import { CUDA_DEVICE, librariesUnderTest } from './device-under-test.ts';

/** What a real device would not survive, or what one alone can't do. */
const onEmulation = test.if(CUDA_DEVICE === 'cuda-emulation');

const { cudart, cublas: cublasPaths, cublasLt: ltPaths } = await librariesUnderTest();
const runtime = new CudaRuntime(cudart);
runtime.selectDevice(0);
const stream = runtime.createStream();
const { functions } = runtime;
const workspace = { ptr: runtime.malloc(1 << 16), bytes: 1 << 16 };
const lt = new CublasLt(ltPaths, stream, workspace);
const cublas = new Cublas(cublasPaths, stream, workspace);
afterAll(() => {
  lt.close();
  cublas.close();
  functions.cudaStreamDestroy(stream);
});

function onDevice(bytes: Uint8Array): number {
  const address = runtime.malloc(Math.max(16, bytes.length));
  runtime.check('cudaMemcpyAsync', functions.cudaMemcpyAsync(address, ptr(bytes), bytes.length, 1, stream));
  return address;
}

const float32s = (values: ArrayLike<number>) => onDevice(new Uint8Array(Float32Array.from(values).buffer));
const float16s = (values: ArrayLike<number>) => onDevice(new Uint8Array(Float16Array.from(values).buffer));

function read(address: number, bytes: number): ArrayBuffer {
  const host = new Uint8Array(bytes);
  runtime.check('cudaMemcpyAsync', functions.cudaMemcpyAsync(ptr(host), address, bytes, 2, stream));
  return host.buffer;
}

/** out[i, j] = Σ x[i, p] w[j, p] + bias[j] in double precision. */
function reference(x: ArrayLike<number>, w: ArrayLike<number>, [m, n, k]: readonly number[], bias?: ArrayLike<number>) {
  return Array.from({ length: m! * n! }, (_, at) => {
    const [i, j] = [Math.floor(at / n!), at % n!];
    let sum = bias?.[j] ?? 0;
    for (let p = 0; p < k!; p++) sum += x[i * k! + p]! * w[j * k! + p]!;
    return sum;
  });
}

describe('cublasLt', () => {
  test('adds a bias of float16 before the result is rounded, once', () => {
    const shape = [5, 7, 24] as const;
    const [m, n, k] = shape;
    const half = (length: number, seed: number) => new Float16Array(randomFloats(length, seed));
    const [x, w, bias] = [half(m * k, 1), half(n * k, 2), half(n, 3)];
    const out = float16s(new Array(m * n).fill(0));
    const product = { dtype: 'float16', outDtype: 'float16', shape, w: float16s(w), bias: float16s(bias) } as const;
    const enqueued = lt.product({ ...product, x: [float16s(x), k], out: [out, n] });
    expect(enqueued).toBe(true);
    const expected = new Float16Array(reference(x, w, shape, bias));
    const actual = new Float16Array(read(out, m * n * 2));
    // Sums in float32 may fall on the other side of a rounding; at most a unit in the last place.
    expected.forEach(
      (value, i) =>
        void expect(Math.abs(actual[i]! - value)).toBeLessThanOrEqual(2 ** -10 * Math.max(1, Math.abs(value))),
    );
  });

  test('multiplies fp8 matrices with their scales', () => {
    const shape = [3, 16, 32] as const;
    const [m, n, k] = shape;
    // 0x38 is 1 in E4M3, 0x30 0.5, 0xb8 -1.
    const codes = [0x38, 0x30, 0xb8, 0];
    const values = [1, 0.5, -1, 0];
    const pick = (length: number, step: number) => Array.from({ length }, (_, i) => (i * step) % 4);
    const [x, w] = [pick(m * k, 3), pick(n * k, 5)];
    const bytes = (picked: readonly number[]) => onDevice(Uint8Array.from(picked, (i) => codes[i]!));
    const out = float32s(new Array(m * n).fill(0));
    const enqueued = lt.product({
      ...{ dtype: 'fp8_e4m3', outDtype: 'float32', shape, bias: 0, w: bytes(w) },
      x: [bytes(x), k],
      out: [out, n],
      scales: [float32s([2]), float32s([0.25])],
    });
    expect(enqueued).toBe(true);
    const sums = reference(
      x.map((i) => values[i]!),
      w.map((i) => values[i]!),
      shape,
    );
    expect([...new Float32Array(read(out, m * n * 4))]).toEqual(sums.map((sum) => sum * 0.5));
  });

  test('says what it has no algorithm for', () => {
    const shape = [3, 8, 20] as const;
    const address = workspace.ptr;
    const fp8 = { dtype: 'fp8_e4m3', outDtype: 'float32', shape, w: address, bias: 0 } as const;
    expect(lt.product({ ...fp8, x: [address, 20], out: [address, 8] })).toBe(false);
    expect(lt.product({ ...fp8, x: [address, 20], out: [address, 8] })).toBe(false);
  });

  onEmulation('an address that is not of the device is refused by the name of the call', () => {
    const product = { dtype: 'float32', outDtype: 'float32', shape: [1, 1, 4], w: 4096, bias: 0 } as const;
    expect(() => lt.product({ ...product, x: [4096, 4], out: [4096, 1] })).toThrow(
      'cublasLtMatmul: CUBLAS_STATUS_INVALID_VALUE (7)',
    );
  });

  test('a library that is not there is named', () => {
    expect(() => new CublasLt(['libcublasLt.so.0'], stream, workspace)).toThrow(/libcublasLt can't be opened/);
  });
});

test('cuBLAS multiplies a batch of matrices that lie a stride apart', () => {
  const shape = [2, 3, 4] as const;
  const [m, n, k] = shape;
  const [x, w] = [randomFloats(3 * m * k, 1), randomFloats(n * k, 2)];
  const out = float32s(new Array(3 * (m * n + 1)).fill(-1));
  // One weight for all.
  cublas.batchedLinear('float32', 'float32', shape, 3, [float32s(x), m * k], [float32s(w), 0], [out, m * n + 1]);
  const actual = new Float32Array(read(out, 3 * (m * n + 1) * 4));
  for (let batch = 0; batch < 3; batch++) {
    const expected = reference(x.slice(batch * m * k, (batch + 1) * m * k), w, shape);
    expected.forEach((value, i) => void expect(actual[batch * (m * n + 1) + i]).toBeCloseTo(value, 5));
    expect(actual[batch * (m * n + 1) + m * n]).toBe(-1);
  }
});

onEmulation('a row of a product has the same bits whichever library or kernel computes it', async () => {
  const device = await createDevice('cuda-emulation');
  const [n, k, rows] = [20, 272, 9];
  const values = rounded(randomFloats(n * k, 1), 'float32');
  const weight = device.packLinear(
    [{ ptr: ptr(values), dtype: 'float32', rows: n, cols: k, ld: k }],
    'bfloat16',
    'test',
  );
  const bias = device.uploadVector(rounded(randomFloats(n, 2), 'bfloat16'), 'test');
  const x = device.staging(rows * k * 2, 'test');
  new Uint16Array(x.host).set(
    Uint16Array.from(new Uint32Array(randomFloats(rows * k, 3).buffer), (word) => word >>> 16),
  );
  x.upload();
  const out = device.staging(rows * n * 2, 'test');
  const multiply = (m: number) => {
    device.ops.linear(x.ptr, k, weight.ptr, DTYPE_CODES.bfloat16, bias, out.ptr, n, m, n, k);
    out.download();
    device.wait(device.record());
    return new Uint16Array(out.host).slice(0, m * n);
  };
  const all = multiply(rows);
  for (let m = 1; m < rows; m++) expect(multiply(m)).toEqual(all.slice(0, m * n));
  device.close();
});

test("a bias's copy lives as long as the bias", async () => {
  const device = await createDevice(CUDA_DEVICE);
  const before = device.memoryReport();
  const [n, k, m] = [8, 8, 6];
  const ones = new Float32Array(n * k).fill(1);
  const weight = device.packLinear([{ ptr: ptr(ones), dtype: 'float32', rows: n, cols: k, ld: k }], 'bfloat16', 'w');
  const [x, out] = [device.alloc(m * k * 2, 'x'), device.staging(m * n * 2, 'out')];
  for (const value of [3, 5]) {
    const bias = device.uploadVector(new Float32Array(n).fill(value), 'bias');
    device.ops.linear(x, k, weight.ptr, DTYPE_CODES.bfloat16, bias, out.ptr, n, m, n, k);
    out.download();
    device.wait(device.record());
    const [first] = new Float32Array(Uint32Array.of(new Uint16Array(out.host)[0]! << 16).buffer);
    expect(first).toBe(value);
    device.free(bias);
  }
  for (const address of [weight.ptr, x]) device.free(address);
  out.free();
  expect(device.memoryReport()).toEqual(before);
  device.close();
});

describe('products in a graph', () => {
  const [m, n, k] = [8, 8, 8];
  const [x, out] = [float32s(new Array(m * k).fill(2)), float32s(new Array(m * n).fill(0))];
  const multiply = (by: Cublas) => by.linear('float32', 'float32', [m, n, k], [x, k], x, [out, n]);

  test('work in memory that is set aside for them', () => {
    const executable = runtime.captureGraph(
      stream,
      () => multiply(cublas),
      (graph) => runtime.instantiateGraph(graph),
    );
    runtime.check('cudaGraphLaunch', functions.cudaGraphLaunch(executable, stream));
    expect(new Float32Array(read(out, 4))[0]).toBe(k * 4);
    functions.cudaGraphExecDestroy(executable);
  });

  onEmulation('are refused where there is none', () => {
    const without = new Cublas(cublasPaths, stream, { ...workspace, bytes: 0 });
    expect(() =>
      runtime.captureGraph(
        stream,
        () => multiply(without),
        () => {},
      ),
    ).toThrow('cublasGemmEx: CUBLAS_STATUS_ALLOC_FAILED');
    multiply(without);
    without.close();
  });
});

onEmulation('two devices copy memory to each other', () => {
  expect(runtime.canAccessPeer(0, 1)).toBe(true);
  expect(runtime.canAccessPeer(0, 0)).toBe(false);
  runtime.enablePeerAccess(1);
  runtime.enablePeerAccess(1);
  expect(() => runtime.enablePeerAccess(7)).toThrow('cudaDeviceEnablePeerAccess: cudaErrorInvalidDevice (101)');
  const from = float32s([1, 2, 3, 4]);
  runtime.selectDevice(1);
  const there = runtime.malloc(16);
  runtime.selectDevice(0);
  const back = runtime.malloc(16);
  runtime.copyPeer([there, 1], [from, 0], 16, stream);
  runtime.copyPeer([back, 0], [there, 1], 16, stream);
  expect([...new Float32Array(read(back, 16))]).toEqual([1, 2, 3, 4]);
  expect(() => runtime.copyPeer([there, 0], [from, 0], 16, stream)).toThrow('cudaErrorInvalidValue');
  for (const address of [from, there, back]) runtime.check('cudaFree', functions.cudaFree(address));
});
