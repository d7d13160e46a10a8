import { dlopen, type Pointer, toArrayBuffer } from 'bun:ffi';
import { afterAll, expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findCompiler, run } from '../../../scripts/compiler.ts';
import { Nccl } from '../../../src/device/cuda/nccl.ts';

const folder = mkdtempSync(join(tmpdir(), 'bao-nccl-'));
afterAll(() => rmSync(folder, { recursive: true }));
const library = join(folder, 'libnccl.so');
await run(findCompiler(), [
  '-std=c++17',
  '-shared',
  '-fPIC',
  join(import.meta.dir, 'nccl-stand-in.cpp'),
  '-o',
  library,
]);
const { symbols } = dlopen(library, { noted: { args: [], returns: 'ptr' } });

/** What the last call was given. */
function noted(count: number): number[] {
  return [...new BigInt64Array(toArrayBuffer(symbols.noted() as Pointer, 0, count * 8))].map(Number);
}

const [FLOAT32, BFLOAT16, INT32, SUM] = [7, 9, 2, 0];

test('calls arrive with their arguments, the unique id by value', () => {
  const nccl = new Nccl([library]);
  expect(nccl.version).toBe(22_700);
  const id = nccl.uniqueId();
  expect(id).toEqual(Uint8Array.from({ length: 128 }, (_, i) => i + 1));
  const comm = nccl.communicator(id, 2, 4, 0x5000);
  // Bytes from 128 on are negative as C's char.
  const bytes = Array.from({ length: 128 }, (_, i) => (i + 1) * (i + 1 < 128 ? i + 1 : -128));
  expect(noted(3)).toEqual([4, 2, bytes.reduce((sum, byte) => sum + byte, 0)]);
  comm.allReduce(16, 32, 2 ** 33, 'bfloat16');
  expect(noted(7)).toEqual([16, 32, 2 ** 33, BFLOAT16, SUM, 0x7000, 0x5000]);
  comm.reduceScatter(16, 32, 5, 'float32');
  expect(noted(7)).toEqual([16, 32, 5, FLOAT32, SUM, 0x7000, 0x5000]);
  comm.allGather(16, 32, 5, 'int32');
  expect(noted(6)).toEqual([16, 32, 5, INT32, 0x7000, 0x5000]);
  comm.send(16, 5, 'float32', 3);
  expect(noted(6)).toEqual([16, 5, FLOAT32, 3, 0x7000, 0x5000]);
  comm.receive(16, 5, 'float32', 1);
  expect(noted(6)).toEqual([16, 5, FLOAT32, 1, 0x7000, 0x5000]);
  expect(() => nccl.group(() => comm.send(16, 5, 'float32', -1))).toThrow('ncclSend: invalid argument (4)');
  // The group is closed all the same.
  expect(noted(1)).toEqual([2]);
  comm.close();
  expect(noted(1)).toEqual([0x7000]);
  expect(() => nccl.communicator(id.subarray(1), 0, 1, 0)).toThrow('128 bytes, not 127');
});

test('a library that is not there is named', () => {
  expect(() => new Nccl(['libnccl.so.0'])).toThrow(/libnccl can't be opened \(.*libnccl\.so\.0/);
});
