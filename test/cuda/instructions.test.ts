/**
 * The emulation's warp instructions against sources that its author did not write:
 *   fragments of mma     CUTLASS, include/cute/atom/mma_traits_sm80.hpp, MMA_Traits<SM80_16x8x16_F32F16F16F32_TN> (and …F32BF16BF16F32_TN, the same)
 *   … of 8-bit integers  the same file, MMA_Traits<SM80_16x8x32_S32S8S8S32_TN>
 *   ldmatrix             CUTLASS, include/cute/atom/copy_traits_sm75.hpp, Copy_Traits<SM75_U32x4_LDSM_N> and Copy_Traits<SM75_U16x4_LDSM_T>
 *   shuffles             PTX ISA, "shfl.sync", its pseudocode, with the c operand that CUDA's sm_30_intrinsics.hpp gives it for a width of 32
 *   votes                PTX ISA, "vote.sync"
 *   groups of cp.async   PTX ISA, "cp.async.commit_group" and "cp.async.wait_group"
 */
import { dlopen, type Pointer, ptr } from 'bun:ffi';
import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { ensureEmulatedLibrary } from '../../scripts/build-cuda.ts';
import { CudaRuntime } from '../../src/device/cuda/cuda-runtime.ts';

const { cudart, kernels } = await ensureEmulatedLibrary(join(import.meta.dir, 'probe.cu'), false);
const runtime = new CudaRuntime(cudart);
runtime.selectDevice(0);
const stream = runtime.createStream();
const { symbols: probe } = dlopen(kernels, {
  probe_mma: { args: ['ptr', 'ptr', 'ptr', 'ptr', 'i32'], returns: 'i32' },
  probe_mma_s8: { args: ['ptr', 'ptr', 'ptr', 'ptr'], returns: 'i32' },
  probe_ldmatrix: { args: ['ptr', 'ptr', 'ptr', 'ptr', 'ptr'], returns: 'i32' },
  probe_shuffle: { args: ['ptr', 'ptr'], returns: 'i32' },
  probe_vote: { args: ['ptr', 'i32', 'ptr'], returns: 'i32' },
  probe_copy: { args: ['ptr', 'ptr', 'ptr'], returns: 'i32' },
});
const { cudaMemcpyAsync } = runtime.functions;
const onStream = stream as Pointer;

function upload(values: Float32Array | Int32Array): Pointer {
  const address = runtime.malloc(values.byteLength);
  runtime.check('cudaMemcpyAsync', cudaMemcpyAsync(address, ptr(values), values.byteLength, 1, stream));
  return address as Pointer;
}

function download<View extends Float32Array | Int32Array>(address: Pointer, into: View): View {
  runtime.check('cudaMemcpyAsync', cudaMemcpyAsync(ptr(into), address, into.byteLength, 2, stream));
  return into;
}

type Mode = readonly (readonly [size: number, stride: number])[];

/** A CuTe layout of a thread mode and a value mode, each of sub-modes with the first one fastest. */
function layout(threads: Mode, values: Mode): (thread: number, value: number) => number {
  const offset = (mode: Mode, index: number) => {
    let [left, sum] = [index, 0];
    for (const [size, stride] of mode) {
      sum += (left % size) * stride;
      left = Math.floor(left / size);
    }
    return sum;
  };
  return (thread, value) => offset(threads, thread) + offset(values, value);
}

// Offsets in M x K, N x K and M x N, the first index fastest.
const FRAGMENT_A = layout(
  [
    [4, 32],
    [8, 1],
  ],
  [
    [2, 16],
    [2, 8],
    [2, 128],
  ],
);
const FRAGMENT_B = layout(
  [
    [4, 16],
    [8, 1],
  ],
  [
    [2, 8],
    [2, 64],
  ],
);
const FRAGMENT_C = layout(
  [
    [4, 32],
    [8, 1],
  ],
  [
    [2, 16],
    [2, 8],
  ],
);

// The accumulators' is FRAGMENT_C too.
const BYTES_A = layout(
  [
    [4, 64],
    [8, 1],
  ],
  [
    [4, 16],
    [2, 8],
    [2, 256],
  ],
);
const BYTES_B = layout(
  [
    [4, 32],
    [8, 1],
  ],
  [
    [4, 8],
    [2, 128],
  ],
);

describe('mma.m16n8k16 has the fragments that CUTLASS gives it', () => {
  test.each([
    ['float16', 0],
    ['bfloat16', 1],
  ])('%s', (_, bfloat16) => {
    // Small whole numbers, so that every order of summation gives the same bits.
    const numbers = (length: number, step: number) => Float32Array.from({ length }, (_, i) => ((i * step) % 17) - 8);
    const [a, b, c] = [numbers(16 * 16, 7), numbers(8 * 16, 5), numbers(16 * 8, 3)];
    const laneA = Float32Array.from({ length: 256 }, (_, i) => a[FRAGMENT_A(i >> 3, i & 7)]!);
    const laneB = Float32Array.from({ length: 128 }, (_, i) => b[FRAGMENT_B(i >> 2, i & 3)]!);
    const out = upload(Float32Array.from({ length: 128 }, (_, i) => c[FRAGMENT_C(i >> 2, i & 3)]!));
    expect(probe.probe_mma(onStream, upload(laneA), upload(laneB), out, bfloat16)).toBe(0);
    const result = download(out, new Float32Array(128));
    for (let i = 0; i < 128; i++) {
      const at = FRAGMENT_C(i >> 2, i & 3);
      const [m, n] = [at % 16, Math.floor(at / 16)];
      let sum = c[at]!;
      for (let k = 0; k < 16; k++) sum += a[m + 16 * k]! * b[n + 8 * k]!;
      expect(result[i]).toBe(sum);
    }
  });
});

test('mma.m16n8k32 of signed bytes has the fragments that CUTLASS gives it', () => {
  const numbers = (length: number, step: number) => Int8Array.from({ length }, (_, i) => ((i * step) % 256) - 128);
  const [a, b] = [numbers(16 * 32, 37), numbers(8 * 32, 91)];
  const c = Int32Array.from({ length: 16 * 8 }, (_, i) => i * 1_000_003 - 60_000_000);
  const words = (bytes: Int8Array) => new Int32Array(bytes.buffer);
  const laneA = words(Int8Array.from({ length: 512 }, (_, i) => a[BYTES_A(i >> 4, i & 15)]!));
  const laneB = words(Int8Array.from({ length: 256 }, (_, i) => b[BYTES_B(i >> 3, i & 7)]!));
  const out = upload(Int32Array.from({ length: 128 }, (_, i) => c[FRAGMENT_C(i >> 2, i & 3)]!));
  expect(probe.probe_mma_s8(onStream, upload(laneA), upload(laneB), out)).toBe(0);
  const result = download(out, new Int32Array(128));
  for (let i = 0; i < 128; i++) {
    const at = FRAGMENT_C(i >> 2, i & 3);
    const [m, n] = [at % 16, Math.floor(at / 16)];
    let sum = c[at]!;
    for (let k = 0; k < 32; k++) sum += a[m + 16 * k]! * b[n + 8 * k]!;
    expect(result[i]).toBe(sum);
  }
});

test('ldmatrix takes rows from lanes and gives their elements to lanes as CUTLASS says', () => {
  // Layouts are maps to bits of the tile: 128 for each row that a lane names.
  const plain = layout(
    [[32, 32]],
    [
      [32, 1],
      [4, 1024],
    ],
  );
  const transposed = layout(
    [
      [4, 256],
      [8, 16],
    ],
    [
      [16, 1],
      [2, 128],
      [2, 1024],
    ],
  );
  // Rows lie anywhere, and x2 looks at the first 16 lanes' only.
  const rows = Int32Array.from({ length: 32 }, (_, lane) => (lane * 11 + 5) % 32);
  const element = (bit: number) => rows[Math.floor(bit / 128)]! * 8 + Math.floor((bit % 128) / 16);
  const inputs = [upload(Int32Array.from({ length: 256 }, (_, i) => i)), upload(rows)] as const;
  const [four, two] = [upload(new Int32Array(128)), upload(new Int32Array(64))];
  expect(probe.probe_ldmatrix(onStream, ...inputs, four, two)).toBe(0);
  const registers = [download(four, new Int32Array(128)), download(two, new Int32Array(64))] as const;
  const expected = (map: typeof plain, perLane: number) =>
    Int32Array.from({ length: 32 * perLane }, (_, i) => {
      const [lane, register] = [Math.floor(i / perLane), i % perLane];
      return element(map(lane, 32 * register)) | (element(map(lane, 32 * register + 16)) << 16);
    });
  expect(registers).toEqual([expected(plain, 4), expected(transposed, 2)]);
});

test('shuffles read the lane that the pseudocode of shfl.sync names', () => {
  const out = upload(new Int32Array(4 * 64 * 32));
  expect(probe.probe_shuffle(onStream, out)).toBe(0);
  const result = download(out, new Int32Array(4 * 64 * 32));
  const expected = ['idx', 'up', 'down', 'bfly'].flatMap((mode) =>
    Array.from({ length: 64 * 32 }, (_, i) => {
      const [b, lane] = [Math.floor(i / 32), i % 32];
      const [bval, cval, segmask] = [b & 31, mode === 'up' ? 0 : 31, 0];
      const maxLane = (lane & segmask) | (cval & ~segmask);
      const minLane = lane & segmask;
      const source = { idx: minLane | (bval & ~segmask), up: lane - bval, down: lane + bval, bfly: lane ^ bval }[mode]!;
      return (mode === 'up' ? source >= maxLane : source <= maxLane) ? source : lane;
    }),
  );
  expect([...result]).toEqual(expected);
});

test('votes count the lanes of the mask alone', () => {
  for (const predicates of [0, -1, 0x00000fff, 0x12345678, 1 << 31]) {
    const out = upload(new Int32Array(96));
    expect(probe.probe_vote(onStream, predicates, out)).toBe(0);
    const masks = Array.from({ length: 32 }, (_, lane) => (lane < 12 ? 0x00000fff : ~0x00000fff));
    const ballots = masks.map((mask) => mask & predicates);
    expect([...download(out, new Int32Array(96))]).toEqual([
      ...ballots,
      ...ballots.map((ballot) => (ballot !== 0 ? 1 : 0)),
      ...ballots.map((ballot, lane) => (ballot === masks[lane] ? 1 : 0)),
    ]);
  }
});

test('cp.async arrives with its group, an empty group counts, and what is in no group is not waited for', () => {
  const data = upload(Float32Array.from({ length: 20 }, (_, i) => i + 1));
  const out = upload(new Float32Array(28));
  expect(probe.probe_copy(onStream, data, out)).toBe(0);
  const result = download(out, new Float32Array(28));
  const moments = Array.from({ length: 5 }, (_, i) => [...result.slice(4 * i, 4 * i + 4)]);
  // The second copy's source is invalid: it writes zeros.
  expect(moments).toEqual([
    [NaN, NaN, NaN, NaN],
    [1, 0, NaN, NaN],
    [1, 0, NaN, NaN],
    [1, 0, 9, NaN],
    [1, 0, 9, 13],
  ]);
  // Copies of 4 bytes, of which the second is invalid, and what lies behind them.
  expect([...result.slice(20)]).toEqual([NaN, NaN, NaN, NaN, 17, 0, NaN, NaN]);
});
