import { ptr } from 'bun:ffi';
import { afterAll, expect, test } from 'bun:test';
import { createDevice } from '../../../src/device/create-device.ts';
import type { CudaDevice } from '../../../src/device/cuda/cuda-device.ts';
import { CudaProbe } from '../../../src/device/cuda/cuda-probe.ts';
import { CudaRuntime } from '../../../src/device/cuda/cuda-runtime.ts';
import { DTYPE_CODES } from '../../../src/device/dtype.ts';
import { CUDA_DEVICE } from './device-under-test.ts';

const device = await createDevice(CUDA_DEVICE);
afterAll(() => device.close());

test('a library that is not there is named in one sentence', () => {
  expect(() => new CudaRuntime(['libcudart.so.0'])).toThrow(
    /^no CUDA device: libcudart can't be opened \(.*libcudart\.so\.0/,
  );
});

test('memory is reported by purpose, reads as zeros when it is used again, and is refused by name', () => {
  const staged = device.staging(64, 'test');
  new Int32Array(staged.host).fill(7);
  const first = device.alloc(64, 'first');
  staged.upload();
  device.ops.copy_bytes(staged.ptr, first, 64);
  expect(device.memoryReport()).toMatchObject({ first: 64, test: 64 });
  device.free(first);
  expect(device.memoryReport()).not.toContainKey('first');

  const second = device.alloc(64, 'second');
  device.ops.copy_bytes(second, staged.ptr, 64);
  staged.download();
  device.wait(device.record());
  expect([...new Int32Array(staged.host)]).toEqual(new Array(16).fill(0));
  expect(() => device.alloc(2 ** 40, 'everything')).toThrow('out of memory: no 1048576.0 MiB for everything');
  expect(() => device.free(12345)).toThrow('not allocated here');
});

test('a probe reads what there is, and multiplies numbers of different signs and like size', async () => {
  const cuda = (await createDevice(CUDA_DEVICE)) as CudaDevice;
  const [count, sum] = [4096, cuda.staging(4, 'test')];
  const words = cuda.staging(4 * count, 'test');
  cuda.fillNoise(words.ptr, 4 * count);
  cuda.probeRead(words.ptr, 4 * count, sum.ptr);
  words.download();
  sum.download();
  cuda.wait(cuda.record());
  const total = new Uint32Array(words.host).reduce((x, y) => (x + y) >>> 0, 0);
  expect(new Uint32Array(sum.host)[0]).toBe(total);
  // bfloat16 is the upper half of a float32.
  const values = Uint32Array.from(new Uint16Array(words.host), (half) => half << 16);
  const elements = new Float32Array(values.buffer);
  expect(elements.every((value) => Math.abs(value) >= 2 ** -7 && Math.abs(value) < 2 ** -6)).toBe(true);
  const positive = elements.filter((value) => value > 0).length / elements.length;
  expect(positive).toBeGreaterThan(0.45);
  expect(positive).toBeLessThan(0.55);
  expect(new Set(elements).size).toBe(256);
  const probe = new CudaProbe(cuda, { readBytes: 1 << 16, matrixSize: 64 });
  expect(probe.readBandwidth(1)).toBeGreaterThan(0);
  expect(probe.multiplyPeak(1)).toBeGreaterThan(0);
  probe.close();
  cuda.close();
});

test('blocks of a KV cache are swapped with memory of the host: out to a pinned buffer, back to another place', () => {
  const blockBytes = 256;
  const cache = device.staging(4 * blockBytes, 'test');
  const swapped = device.staging(2 * blockBytes, 'test');
  const pairs = device.staging(8, 'test');
  new Uint8Array(cache.host).set(Uint8Array.from({ length: 4 * blockBytes }, (_, i) => Math.floor(i / blockBytes)));
  cache.upload();
  // Blocks 3 and 1 go out, and the host has them.
  [3, 1].forEach((block, i) => {
    device.ops.copy_bytes(cache.ptr + block * blockBytes, swapped.ptr + i * blockBytes, blockBytes);
  });
  swapped.download();
  device.wait(device.record());
  const out = new Uint8Array(swapped.host);
  expect([out[0], out[blockBytes]]).toEqual([3, 1]);
  // Their places are taken by block 0 and by what comes back.
  new Int32Array(pairs.host).set([0, 3]);
  pairs.upload();
  device.ops.copy_blocks(cache.ptr, pairs.ptr, 1, blockBytes);
  swapped.upload();
  device.ops.copy_bytes(swapped.ptr, cache.ptr + blockBytes, blockBytes);
  cache.download();
  device.wait(device.record());
  const blocks = new Uint8Array(cache.host);
  expect([0, 1, 2, 3].map((block) => blocks[block * blockBytes + 7])).toEqual([0, 3, 2, 0]);
});

test('an event is reached only when its work is done', () => {
  // Long enough for a real device not to be done at once.
  const staged = device.staging(64 << 20, 'test');
  staged.upload();
  staged.download();
  const event = device.record();
  expect(device.query(event)).toBe(false);
  device.wait(event);
  expect(device.query(event)).toBe(true);
  staged.free();
});

test('arguments that can not be right are refused with names and values', () => {
  expect(() => device.ops.rms_norm(0, 0, 0, 1, 16, 1e-6)).toThrow(
    'rms_norm: a pointer is null (x=0, weight=0, out=0, rows=1, n=16',
  );
  expect(() => device.ops.linear(1, 4, 1, 0, 0, 1, 4, 1, 4, 4)).toThrow('a data type that this kernel does not know');
});

test('a graph that read a bias is not found again when another bias lies at its address', async () => {
  const cuda = await createDevice(CUDA_DEVICE, { replaySizes: [8] });
  // More rows than the kernel for few takes: cublasLt adds a copy of the bias in the activations' type.
  const [m, n, k] = [8, 64, 64];
  const x = cuda.alloc(m * k * 2, 'x');
  const out = cuda.staging(m * n * 2, 'out');
  const zeros = new Float32Array(n * k);
  const source = { ptr: ptr(zeros), dtype: 'float32', rows: n, cols: k, ld: k } as const;
  const weight = cuda.packLinear([source], 'bfloat16', 'weights');
  const results = [3, 5].map((value) => {
    const bias = cuda.uploadVector(new Float32Array(n).fill(value), 'weights');
    // What the first bias's copy may leave is taken by others.
    const others = Array.from({ length: 4 }, () => cuda.alloc(n * 2, 'others'));
    for (let i = 0; i < 2; i++) {
      cuda.replayable(() => cuda.ops.linear(x, k, weight.ptr, DTYPE_CODES.bfloat16, bias, out.ptr, n, m, n, k));
    }
    out.download();
    cuda.wait(cuda.record());
    for (const other of others) cuda.free(other);
    // Last: the next one gets its place.
    cuda.free(bias);
    return { bias, result: new Uint16Array(out.host)[n + 1]! };
  });
  // bfloat16 of 3 and 5.
  expect(results.map(({ result }) => result)).toEqual([0x4040, 0x40a0]);
  expect(results[1]!.bias).toBe(results[0]!.bias);
  cuda.close();
});

test('replays that are forgotten hold no memory, and a device that is closed takes no ops', async () => {
  const cuda = await createDevice(CUDA_DEVICE, { replaySizes: [1] });
  const x = cuda.alloc(64, 'x');
  const step = () => cuda.replayable(() => cuda.ops.soft_cap(x, 16, 30));
  for (let i = 0; i < 2; i++) step();
  cuda.forgetReplays();
  expect(cuda.memoryReport()).not.toContainKey('CUDA graphs');
  step();
  if (CUDA_DEVICE === 'cuda-emulation') expect(cuda.memoryReport()['CUDA graphs']).toBeGreaterThan(0);
  cuda.close();
  expect(() => cuda.ops.soft_cap(x, 16, 30)).toThrow('soft_cap: the device is closed');
});

test('ops that are rehearsed take their memory and run nothing', async () => {
  const cuda = await createDevice(CUDA_DEVICE);
  const [rows, vocabSize] = [64, 200_000];
  const before = cuda.memoryReport().workspace!;
  // Addresses are nobody's.
  cuda.rehearse(() => cuda.ops.logprobs(0, rows, vocabSize, 0, 0, 5, 0, 0, 0, 0));
  const { workspace } = cuda.memoryReport();
  if (CUDA_DEVICE === 'cuda-emulation') expect(workspace).toBeGreaterThan(before);
  expect(workspace).toBeGreaterThan(rows * vocabSize * 4);
  cuda.wait(cuda.record());
  cuda.close();
});

test('graphs are in the memory report, steps are filled up to a capture size, and without sizes there are neither', async () => {
  const graphs = await createDevice(CUDA_DEVICE, { replaySizes: [1, 4] });
  const eager = await createDevice(CUDA_DEVICE, { replaySizes: [] });
  expect([1, 2, 4, 5].map((numSeqs) => graphs.replaySize(numSeqs))).toEqual([1, 4, 4, null]);
  expect(eager.replaySize(1)).toBeNull();
  for (const each of [graphs, eager]) {
    const x = each.staging(64, 'test');
    new Float32Array(x.host).fill(2);
    x.upload();
    // The first is run call by call and captured, the second launched as a graph.
    for (let i = 0; i < 2; i++) each.replayable(() => each.ops.soft_cap(x.ptr, 16, 1e6));
    x.download();
    each.wait(each.record());
    expect(new Float32Array(x.host)[0]).toBeCloseTo(2, 4);
  }
  // A driver may have had room for one as small as this.
  if (CUDA_DEVICE === 'cuda-emulation') expect(graphs.memoryReport()['CUDA graphs']).toBeGreaterThan(0);
  expect(eager.memoryReport()).not.toContainKey('CUDA graphs');
  graphs.close();
  eager.close();
});
