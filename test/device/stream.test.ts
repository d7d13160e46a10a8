import { describe, expect, test } from 'bun:test';
import { KernelError } from '../../src/device/device.ts';
import { buffer, finish, floats, ints, maxError, openDevice, randomFloats } from './harness.ts';

describe('a stream', () => {
  for (const threads of [1, 2, 3, 8]) {
    test(`runs thousands of dependent ops in order on ${threads} threads`, () => {
      const device = openDevice(threads);
      const n = 20_000;
      const ones = floats(device, new Float32Array(n).fill(1));
      const weight = floats(device, new Float32Array(n).fill(1));
      const [sum, out] = [floats(device, new Float32Array(n)), floats(device, new Float32Array(n))];
      // More than the queue holds, each building on the one before.
      for (let i = 0; i < 5000; i++) device.ops.fused_add_rms_norm(ones.ptr, sum.ptr, weight.ptr, out.ptr, 20, 1000, 0);
      finish(device);
      expect(sum.f32.every((value) => value === 5000)).toBe(true);
      device.close();
    });

    test(`hands data from op to op over chunks of all ${threads} threads`, () => {
      const device = openDevice(threads);
      const n = 400_000;
      const values = randomFloats(n, threads);
      const buffers = [floats(device, values), buffer(device, n * 4), buffer(device, n * 4)];
      for (let i = 0; i < 100; i++) device.ops.copy_bytes(buffers[i % 3]!.ptr, buffers[(i + 1) % 3]!.ptr, n * 4);
      finish(device);
      expect(maxError(buffers[100 % 3]!.f32, values)).toBe(0);
      device.close();
    });
  }

  test('wakes from park as often as it is asked to', async () => {
    const device = openDevice(3);
    const sum = floats(device, new Float32Array(64));
    const one = floats(device, new Float32Array(64).fill(1));
    const out = buffer(device, 256);
    for (let i = 0; i < 50; i++) {
      device.ops.fused_add_rms_norm(one.ptr, sum.ptr, one.ptr, out.ptr, 64, 1, 0);
      // A turn of the event loop is longer than threads spin, so that most rounds find them parked.
      await Bun.sleep(1);
      const event = device.record();
      while (!device.query(event)) await Bun.sleep(0);
    }
    expect(sum.f32.every((value) => value === 50)).toBe(true);
    device.close();
  });

  test('makes progress by polling alone with one thread', () => {
    const device = openDevice(1);
    const [source, copy] = [floats(device, randomFloats(200_000, 1)), buffer(device, 800_000)];
    device.ops.copy_bytes(source.ptr, copy.ptr, 800_000);
    const event = device.record();
    while (!device.query(event)) {}
    expect(maxError(copy.f32, source.f32)).toBe(0);
    device.close();
  });

  test('an event is reached once its work is done, and events of the past at once', () => {
    const device = openDevice(2);
    expect(device.query(device.record())).toBe(true);
    const [source, copy] = [floats(device, randomFloats(1000, 1)), buffer(device, 4000)];
    device.ops.copy_bytes(source.ptr, copy.ptr, 4000);
    const first = device.record();
    device.ops.copy_bytes(copy.ptr, source.ptr, 4000);
    device.wait(device.record());
    expect(device.query(first)).toBe(true);
    device.close();
  });

  test('several streams of one process do not disturb each other', () => {
    const streams = [1, 2, 3].map((threads) => openDevice(threads));
    const sums = streams.map((device) => floats(device, new Float32Array(1000)));
    streams.forEach((device, i) => {
      const add = floats(device, new Float32Array(1000).fill(i + 1));
      const out = buffer(device, 4000);
      for (let round = 0; round < 500; round++) {
        device.ops.fused_add_rms_norm(add.ptr, sums[i]!.ptr, add.ptr, out.ptr, 10, 100, 0);
      }
    });
    for (const device of streams) finish(device);
    for (const [i, sum] of sums.entries()) expect(sum.f32.every((value) => value === 500 * (i + 1))).toBe(true);
    for (const device of streams) device.close();
  });
});

describe('arguments that cannot be right', () => {
  const device = openDevice();
  const data = floats(device, new Float32Array(64)).ptr;
  const list = ints(device, new Int32Array(64)).ptr;
  const refused = (call: () => void): number => {
    try {
      call();
    } catch (error) {
      if (error instanceof KernelError) return error.code;
      throw error;
    }
    return 0;
  };
  const { ops } = device;

  test('shapes are refused with code 1', () => {
    expect(refused(() => ops.rms_norm(data, data, data, -1, 4, 1e-6))).toBe(1);
    expect(refused(() => ops.rms_norm(data, data, data, 1, 0, 1e-6))).toBe(1);
    expect(refused(() => ops.fused_add_rms_norm(data, data, data, data, 1, 4, Number.NaN))).toBe(1);
    expect(refused(() => ops.linear(data, 3, data, 0, 0, data, 4, 1, 4, 4))).toBe(1);
    expect(refused(() => ops.linear(data, 4, data, 0, 0, data, 3, 1, 4, 4))).toBe(1);
    expect(refused(() => ops.linear(data, 4, data, 0, 0, data, 4, 1, 0, 4))).toBe(1);
    expect(refused(() => ops.qk_norm_rope(data, 64, list, data, 0, 0, 0, 1, 1, 1, 8, 7, 0))).toBe(1);
    expect(refused(() => ops.qk_norm_rope(data, 15, list, data, 0, 0, 0, 1, 1, 1, 8, 8, 0))).toBe(1);
    expect(refused(() => ops.act_and_mul(data, data, 1, 4, 3))).toBe(1);
    expect(refused(() => ops.embedding(list, data, 0, data, 1, 0, 4, 1))).toBe(1);
    expect(refused(() => ops.gather_rows(data, list, data, 1, -4))).toBe(1);
    expect(refused(() => ops.gather_token_ids(list, 0, list, list, list, 1))).toBe(1);
    expect(refused(() => ops.copy_blocks(data, list, 1, 0))).toBe(1);
    expect(refused(() => ops.copy_bytes(data, data, -1))).toBe(1);
    expect(refused(() => ops.reshape_and_cache(data, data, 8, list, data, 0, 1, 1, 257, 16))).toBe(1);
    expect(
      refused(() => ops.paged_attention(data, 8, data, 0, list, 1, list, list, 1, 3, 2, 8, 16, 1, 0, 0, 0, data, 8)),
    ).toBe(1);
    expect(
      refused(() => ops.paged_attention(data, 8, data, 0, list, 1, list, list, 1, 1, 1, 8, 16, 1, 0, -1, 0, data, 8)),
    ).toBe(1);
  });

  test('types are refused with code 2', () => {
    expect(refused(() => ops.linear(data, 4, data, 3, 0, data, 4, 1, 4, 4))).toBe(2);
    expect(refused(() => ops.embedding(list, data, 7, data, 1, 4, 4, 1))).toBe(2);
    expect(refused(() => ops.reshape_and_cache(data, data, 8, list, data, 5, 1, 1, 8, 16))).toBe(2);
  });

  test('null pointers are refused with code 3, unless there is nothing to do', () => {
    expect(refused(() => ops.rms_norm(0, data, data, 1, 4, 1e-6))).toBe(3);
    expect(refused(() => ops.fused_add_rms_norm(data, 0, data, data, 1, 4, 1e-6))).toBe(3);
    expect(refused(() => ops.linear(data, 4, 0, 0, 0, data, 4, 1, 4, 4))).toBe(3);
    expect(refused(() => ops.qk_norm_rope(data, 64, 0, data, 0, 0, 0, 1, 1, 1, 8, 8, 0))).toBe(3);
    expect(refused(() => ops.copy_blocks(0, list, 1, 4))).toBe(3);
    expect(refused(() => ops.rms_norm(0, 0, 0, 0, 4, 1e-6))).toBe(0);
    expect(refused(() => ops.linear(0, 4, 0, 0, 0, 0, 4, 0, 4, 4))).toBe(0);
  });

  test('the error names the op, the reason and the arguments', () => {
    expect(() => ops.rms_norm(data, data, data, -1, 4, 0.5)).toThrow(
      `rms_norm: a shape is negative, zero or not a multiple of what the kernel needs (x=${data}, weight=${data}, out=${data}, rows=-1, n=4, eps=0.5)`,
    );
  });

  test('a closed stream is refused with code 4', () => {
    device.close();
    expect(refused(() => ops.copy_bytes(data, data, 4))).toBe(4);
  });
});
