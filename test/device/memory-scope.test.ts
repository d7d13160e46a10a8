import { expect, test } from 'bun:test';
import { MemoryScope } from '../../src/device/memory-scope.ts';
import { floats, openDevice, randomFloats } from './harness.ts';

test('a scope frees all that was allocated through it, and nothing else', () => {
  const device = openDevice();
  const values = floats(device, randomFloats(64, 1));
  const before = device.memoryReport();
  const scope = new MemoryScope(device);
  const source = { ptr: values.ptr, dtype: 'float32' as const, rows: 8, cols: 8, ld: 8 };
  scope.packLinear([source], 'float32', 'linear');
  scope.uploadVector(Float32Array.of(1, 2), 'norm');
  scope.staging(64, 'staging');
  const freed = scope.alloc(64, 'freed');
  const freedStaging = scope.staging(64, 'freed staging');
  expect(Object.keys(device.memoryReport())).toEqual(expect.arrayContaining(['linear', 'norm', 'staging', 'freed']));
  scope.free(freed);
  freedStaging.free();
  scope.freeAll();
  expect(device.memoryReport()).toEqual(before);
  // Once more frees nothing twice.
  scope.freeAll();
  device.close();
});
