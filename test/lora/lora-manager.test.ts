import { afterAll, describe, expect, test } from 'bun:test';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { LoRALoadError } from '../../src/lora/lora-error.ts';
import { LoRALayers } from '../../src/lora/lora-layers.ts';
import { LoRAManager } from '../../src/lora/lora-manager.ts';
import { openDevice } from '../device/harness.ts';
import { withFolder } from '../loader/safetensors-file.ts';
import { adapterFiles, adapterTensors } from './adapter-files.ts';

const device = openDevice(1);
afterAll(() => device.close());

const bytesHeld = () => device.memoryReport()['LoRA weights'] ?? 0;

/** A manager of so many places over a model of one layer, and an adapter's folder. */
function withManager(
  numSlots: number,
  run: (
    manager: LoRAManager,
    request: (id: number) => { id: number; name: string; path: string },
    folder: string,
  ) => void,
) {
  return withFolder(adapterFiles(adapterTensors([['m.q_proj', [6, 5]]], 4, 1)), (folder) => {
    const layers = new LoRALayers(device, { numSlots, dtype: 'bfloat16' });
    layers.add([{ prefix: 'm.q_proj', shape: [6, 5], firstRow: 0, numRows: 6, firstCol: 0, numCols: 5 }]);
    run(new LoRAManager(layers, 16), (id) => ({ id, name: `a${id}`, path: folder }), folder);
    layers.close();
  });
}

describe('adapters in memory', () => {
  test('the least recently used goes first, whoever is used stays', () =>
    withManager(2, (manager, request) => {
      for (const id of [1, 2]) manager.load(request(id));
      manager.acquire(request(1));
      manager.load(request(3));
      expect(manager.residentIds).toEqual([1, 3]);
      const { slot } = manager.acquire(request(3));
      manager.release(1);
      // Read again when it is asked for, in place of the one that nobody uses.
      expect(manager.acquire(request(2)).slot).not.toBe(slot);
      expect(manager.residentIds).toEqual([3, 2]);
    }));

  test('one that finds no place is checked and waits for its first request', () =>
    withManager(1, (manager, request) => {
      manager.acquire(request(1));
      manager.load(request(2));
      expect(manager.residentIds).toEqual([1]);
      expect(() => manager.acquire(request(2))).toThrow('all 1 adapters in memory are in use');
      manager.release(1);
      manager.acquire(request(2));
      expect(manager.residentIds).toEqual([2]);
    }));

  test('all of them go for sleep, and come back to the layers of the model that is loaded again', () => {
    const shards = [{ prefix: 'm', shape: [6, 5] as const, firstRow: 0, numRows: 6, firstCol: 0, numCols: 5 }];
    const layers = new LoRALayers(device, { numSlots: 1, dtype: 'bfloat16' });
    expect(layers.add(structuredClone(shards))).toBe(layers.add(shards));
    layers.close();
    return withManager(2, (manager, request) => {
      const before = bytesHeld();
      for (const id of [1, 2]) manager.load(request(id));
      expect(bytesHeld()).toBeGreaterThan(before);
      manager.evictAll();
      expect([bytesHeld(), manager.residentIds]).toEqual([before, []]);
      manager.acquire(request(2));
      expect(manager.residentIds).toEqual([2]);
    });
  });

  test('what is removed goes with its last request', () =>
    withManager(2, (manager, request) => {
      const before = bytesHeld();
      manager.acquire(request(1));
      manager.acquire(request(1));
      manager.remove(1);
      manager.release(1);
      expect(manager.residentIds).toEqual([1]);
      manager.release(1);
      expect(manager.residentIds).toEqual([]);
      expect(bytesHeld()).toBe(before);
      manager.load(request(2));
      manager.remove(2);
      manager.remove(3);
      expect(bytesHeld()).toBe(before);
      expect(() => manager.release(1)).toThrow('adapter 1 was released and is not in use');
    }));

  test('what is removed while requests wait for it is read for them, and goes with the last', () =>
    withManager(2, (manager, request) => {
      const before = bytesHeld();
      manager.load(request(1));
      manager.remove(1);
      // Twice: a request that was preempted comes again.
      for (const _ of [1, 2]) {
        manager.acquire(request(1));
        expect(manager.residentIds).toEqual([1]);
        manager.release(1);
        expect([manager.residentIds, bytesHeld()]).toEqual([[], before]);
      }
    }));

  test('of those removed long ago nothing is remembered, but whoever uses one still ends it', () =>
    withManager(3, (manager, request) => {
      manager.acquire(request(1));
      for (const id of [1, 2]) manager.remove(id);
      for (let id = 10; id < 5010; id++) manager.remove(id);
      manager.release(1);
      expect(manager.residentIds).toEqual([]);
      // Removed before the others, as far as anyone remembers never.
      for (const id of [2, 5009]) {
        manager.acquire(request(id));
        manager.release(id);
      }
      expect(manager.residentIds).toEqual([2]);
    }));

  test('one whose files are gone is an error for ever, and harms nobody else', () =>
    withManager(1, (manager, request, folder) => {
      manager.load(request(1));
      manager.load(request(2));
      const config = join(folder, 'adapter_config.json');
      const text = JSON.stringify({ r: 4, lora_alpha: 4, target_modules: ['q_proj'] });
      rmSync(config);
      expect(() => manager.acquire(request(1))).toThrow(LoRALoadError);
      // Its prefix cache may hold what the base model computed in its stead.
      writeFileSync(config, text);
      expect(() => manager.acquire(request(1))).toThrow(
        'Loading lora a1 failed: its files could not be read when it was needed again. Load it anew.',
      );
      // Nor is it another one when it is removed before its last request starts.
      manager.remove(1);
      expect(() => manager.acquire(request(1))).toThrow('Load it anew.');
      manager.acquire(request(2));
      expect(manager.residentIds).toEqual([2]);
    }));
});

test('what is wrong with an adapter names it', () =>
  withManager(1, (manager, request, folder) => {
    writeFileSync(join(folder, 'adapter_model.safetensors'), 'short');
    expect(() => manager.load(request(1))).toThrow(
      /^Loading lora a1 failed: .*adapter_model.safetensors: not a safetensors file/,
    );
    expect(manager.residentIds).toEqual([]);
  }));

test('files with any damage load or are refused, and nothing else', () =>
  withManager(1, (manager, request, folder) => {
    const files = ['adapter_config.json', 'adapter_model.safetensors'].map((name) => {
      const path = join(folder, name);
      return { path, bytes: readFileSync(path) };
    });
    const damage = fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 });
    let numRefused = 0;
    fc.assert(
      fc.property(fc.constantFrom(...files), damage, fc.option(fc.nat()), ({ path, bytes }, changes, cut) => {
        const damaged = Buffer.from(bytes);
        // Half of them in the header, where they matter.
        for (const [at, value] of changes)
          damaged[at % (at % 2 === 0 ? damaged.length : Math.min(200, damaged.length))] = value;
        writeFileSync(path, cut === null ? damaged : damaged.subarray(0, cut % damaged.length));
        try {
          manager.load(request(1));
          manager.remove(1);
        } catch (error) {
          expect(error).toBeInstanceOf(LoRALoadError);
          numRefused++;
        } finally {
          writeFileSync(path, bytes);
        }
      }),
      { numRuns: 1000 },
    );
    expect(numRefused).toBeGreaterThan(100);
    manager.load(request(2));
  }));
