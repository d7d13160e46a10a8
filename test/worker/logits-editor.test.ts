import { afterAll, describe, expect, test } from 'bun:test';
import { createDevice } from '../../src/device/create-device.ts';
import { StagedArray } from '../../src/device/staged-array.ts';
import { LogitsEditor } from '../../src/worker/logits-editor.ts';

for (const type of ['cpu', 'cuda-emulation'] as const) {
  const device = await createDevice(type);
  afterAll(() => device.close());

  describe(`logits on ${type}`, () => {
    const vocabSize = 300;
    const logits = new StagedArray(device, 'test');
    const lastOf = (row: number) => {
      logits.download(4 * vocabSize);
      device.wait(device.record());
      return logits.f32[row * vocabSize + 299]!;
    };
    logits.reserve(4 * vocabSize);
    logits.f32.set(Float32Array.from({ length: 4 * vocabSize }, (_, i) => Math.floor(i / vocabSize)));
    logits.upload(4 * vocabSize);

    test('rows are changed in place, the others stay; what was kept is the same as before', () => {
      const editor = new LogitsEditor(device, vocabSize);
      const kept = editor.keep(logits.ptr, 4);
      editor.edit(logits.ptr, [{ row: 2, edit: (row) => row.fill(20).length === vocabSize }]);
      // More rows than before: the staging memory grows while the first ones may be under way.
      editor.edit(logits.ptr, [
        { row: 0, edit: (row) => row.fill(row[0]! + 5).length === vocabSize },
        { row: 2, edit: (row) => row.fill(row[0]! + 5).length === vocabSize },
        { row: 3, edit: (row) => row.fill(99).length === 0 },
      ]);
      expect([0, 1, 2, 3].map(lastOf)).toEqual([5, 1, 25, 3]);
      device.ops.copy_bytes(kept, logits.ptr, 4 * vocabSize * 4);
      expect([0, 1, 2, 3].map(lastOf)).toEqual([0, 1, 2, 3]);
      editor.free();
      expect(device.memoryReport()).not.toContainKey('logits processors');
    });
  });
}
