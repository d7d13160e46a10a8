import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { describe, expect, test } from 'bun:test';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import fc from 'fast-check';
import { LoadError } from '../../src/loader/load-error.ts';
import { openSafetensors, openSafetensorsFiles } from '../../src/loader/safetensors.ts';
import type { TensorView } from '../../src/loader/weight-source.ts';
import { encodeFloats, encodeSafetensors, type HeaderEntry, withFolder } from './safetensors-file.ts';

const DEMO = resolve(import.meta.dir, '../../models/demo');

function floats(view: TensorView): number[] {
  const count = view.shape.reduce((product, size) => product * size, 1);
  return count === 0 ? [] : [...new Float32Array(toArrayBuffer(view.ptr as Pointer, 0, count * 4))];
}

describe('one file', () => {
  test('the demo model: names, shapes and bytes are those of the file', () => {
    const source = openSafetensors(DEMO);
    const file = readFileSync(join(DEMO, 'model.safetensors'));
    const headerBytes = Number(file.readBigUInt64LE(0));
    const header: Record<string, HeaderEntry> = JSON.parse(file.toString('utf8', 8, 8 + headerBytes));
    const names = Object.keys(header).filter((name) => name !== '__metadata__');
    expect(source.names()).toEqual(names.sort());
    for (const name of names) {
      const { shape, data_offsets: offsets } = header[name]!;
      const view = source.get(name, shape);
      expect(view).toMatchObject({ name, dtype: 'bfloat16', shape });
      const bytes = new Uint8Array(toArrayBuffer(view.ptr as Pointer, 0, offsets[1] - offsets[0]));
      const expected = file.subarray(8 + headerBytes + offsets[0], 8 + headerBytes + offsets[1]);
      expect(Buffer.compare(bytes, expected)).toBe(0);
    }
    expect(source.totalBytes).toBe(file.byteLength - 8 - headerBytes);
    source.close();
  });

  test('a tensor that is not aligned to its elements is copied to where it is', async () => {
    const values = [1, -2.5, 3e10, 0];
    await withFolder({ 'model.safetensors': encodeFloats({ a: { shape: [2, 2], values } }, 1) }, (folder) => {
      const source = openSafetensors(folder);
      const view = source.get('a');
      expect(view.ptr % 4).toBe(0);
      expect(floats(view)).toEqual(values.map(Math.fround));
      expect(source.get('a').ptr).toBe(view.ptr);
      source.close();
    });
  });

  test('empty tensors and scalars are tensors', async () => {
    const file = encodeFloats({ scalar: { shape: [], values: [7] }, none: { shape: [0, 4], values: [] } });
    await withFolder({ 'model.safetensors': file }, (folder) => {
      const source = openSafetensors(folder);
      expect(floats(source.get('scalar', []))).toEqual([7]);
      expect(source.get('none', [0, 4]).shape).toEqual([0, 4]);
      source.close();
    });
  });

  test('errors name file, tensor, found and expected', async () => {
    const file = encodeSafetensors({ ids: { dtype: 'I64', shape: [1], data_offsets: [0, 8] } }, Buffer.alloc(8));
    await withFolder({ 'model.safetensors': file }, (folder) => {
      const source = openSafetensors(folder);
      const path = join(folder, 'model.safetensors');
      expect(() => source.get('ids')).toThrow(`${path}: tensor "ids" has dtype I64, which is not supported`);
      expect(() => source.get('nope')).toThrow(`${path}: tensor "nope" is missing`);
      source.close();
      expect(() => source.get('ids')).toThrow(LoadError);
    });
    const demo = openSafetensors(DEMO);
    expect(() => demo.get('model.norm.weight', [257])).toThrow('has shape [256], expected [257]');
    expect(() => demo.get('model.layers.0.mlp.nope')).toThrow('Beside it are: model.layers.0.mlp.down_proj.weight');
    demo.close();
    expect(() => demo.get('model.norm.weight')).toThrow('after close()');
  });
});

describe('broken files are refused', () => {
  const entry: HeaderEntry = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
  const data = Buffer.alloc(8);
  const good = encodeSafetensors({ a: entry }, data);
  const cases: [what: string, file: Uint8Array, message: string][] = [
    ['empty', Buffer.alloc(0), 'not a safetensors file: 0 bytes'],
    ['shorter than the length field', good.subarray(0, 5), 'not a safetensors file: 5 bytes'],
    ['cut in the header', good.subarray(0, 20), 'truncated: the header needs'],
    ['cut in the data', good.subarray(0, good.length - 1), 'tensor "a": its data ends at byte'],
    ['a byte too many', Buffer.concat([good, Buffer.alloc(1)]), 'the header describes'],
    [
      'a huge header length',
      Buffer.concat([Buffer.alloc(8, 0xff), good]),
      'its header would be 18446744073709551615 bytes',
    ],
    ['not JSON', encodeSafetensors('{"a": ', data), 'not valid JSON'],
    ['not UTF-8', Buffer.concat([good.subarray(0, 9), Buffer.of(0xff), good.subarray(10)]), 'not valid JSON'],
    ['a JSON list', encodeSafetensors('[]', data), 'not a JSON object'],
    ['entry is null', encodeSafetensors({ a: null }, data), 'tensor "a": its header entry is not an object'],
    [
      'unknown dtype',
      encodeSafetensors({ a: { ...entry, dtype: 'F33' } }, data),
      'unknown dtype "F33"; known are BOOL',
    ],
    ['missing dtype', encodeSafetensors({ a: { ...entry, dtype: undefined } }, data), 'unknown dtype undefined'],
    ['a dtype of Object.prototype', encodeSafetensors({ a: { ...entry, dtype: 'toString' } }, data), 'unknown dtype'],
    ['negative size', encodeSafetensors({ a: { ...entry, shape: [-2] } }, data), 'shape [-2] is not a list'],
    ['fractional size', encodeSafetensors({ a: { ...entry, shape: [0.5, 4] } }, data), 'shape [0.5,4] is not a list'],
    ['shape is a string', encodeSafetensors({ a: { ...entry, shape: '2' } }, data), 'shape "2" is not a list'],
    ['one offset', encodeSafetensors({ a: { ...entry, data_offsets: [0] } }, data), 'data_offsets [0] is not a pair'],
    [
      'offsets reversed',
      encodeSafetensors({ a: { ...entry, data_offsets: [8, 0] } }, data),
      'data_offsets [8,0] is not a pair',
    ],
    [
      'offsets outside',
      encodeSafetensors({ a: { ...entry, data_offsets: [8, 16] } }, data),
      'tensor "a": its data ends at byte',
    ],
    [
      'size is not the product',
      encodeSafetensors({ a: { ...entry, shape: [3] } }, data),
      'F32 [3] needs 12 bytes, data_offsets gives 8',
    ],
    [
      'a product beyond all bounds',
      encodeSafetensors({ a: { ...entry, shape: [2 ** 40, 2 ** 40] } }, data),
      'data_offsets gives 8',
    ],
    [
      'overlap',
      encodeSafetensors({ a: entry, b: { dtype: 'F32', shape: [1], data_offsets: [4, 8] } }, data),
      'tensors "a" and "b" overlap',
    ],
    [
      'a hole',
      encodeSafetensors({ a: entry, b: { dtype: 'F32', shape: [1], data_offsets: [12, 16] } }, Buffer.alloc(16)),
      '4 bytes before tensor "b" belong to no tensor',
    ],
    ['metadata is a number', encodeSafetensors({ __metadata__: { a: 1 }, a: entry }, data), '__metadata__'],
  ];
  test.each(cases)('%s', async (_what, file, message) => {
    await withFolder({ 'model.safetensors': file }, (folder) => {
      expect(() => openSafetensors(folder)).toThrow(message);
      expect(() => openSafetensors(folder)).toThrow(join(folder, 'model.safetensors'));
      expect(() => openSafetensors(folder)).toThrow(LoadError);
    });
  });

  test('any one byte changed is either refused or leaves every tensor inside the file', async () => {
    const file = encodeFloats({ a: { shape: [2, 3], values: [1, 2, 3, 4, 5, 6] }, b: { shape: [2], values: [7, 8] } });
    await withFolder({}, (folder) =>
      fc.assert(
        fc.property(fc.nat(file.length - 1), fc.integer({ min: 1, max: 255 }), (position, change) => {
          const mutated = Buffer.from(file);
          mutated[position]! ^= change;
          const path = join(folder, 'model.safetensors');
          writeFileSync(path, mutated);
          try {
            const source = openSafetensors(folder);
            expect(source.totalBytes).toBe(32);
            source.close();
          } catch (error) {
            expect(error).toBeInstanceOf(LoadError);
          }
        }),
        { numRuns: 300 },
      ),
    );
  });
});

describe('several files', () => {
  const shards = {
    'model-00001-of-00002.safetensors': encodeFloats({ a: { shape: [2], values: [1, 2] } }),
    'model-00002-of-00002.safetensors': encodeFloats({
      b: { shape: [1], values: [3] },
      extra: { shape: [1], values: [9] },
    }),
  };
  const weightMap = { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' };
  const INDEX = 'model.safetensors.index.json';
  const index = (map: unknown) => JSON.stringify({ metadata: { total_size: 12 }, weight_map: map });

  test('shards with an index: what the index names', async () => {
    await withFolder({ ...shards, [INDEX]: index(weightMap) }, (folder) => {
      const source = openSafetensors(folder);
      expect(source.names()).toEqual(['a', 'b']);
      expect(source.has('extra')).toBe(false);
      expect(floats(source.get('a', [2]))).toEqual([1, 2]);
      expect(floats(source.get('b', [1]))).toEqual([3]);
      expect(source.totalBytes).toBe(12);
      expect(() => source.get('c')).toThrow(`${folder}: tensor "c" is missing`);
      source.close();
    });
  });

  test('shards without an index are taken together', async () => {
    await withFolder(shards, (folder) => {
      const source = openSafetensors(folder);
      expect(source.names()).toEqual(['a', 'b', 'extra']);
      source.close();
    });
  });

  test('a tensor in two files is an error that names both', async () => {
    await withFolder(
      {
        'x.safetensors': encodeFloats({ a: { shape: [1], values: [1] } }),
        'y.safetensors': encodeFloats({ a: { shape: [1], values: [2] } }),
      },
      (folder) => {
        const paths = ['x.safetensors', 'y.safetensors'].map((name) => join(folder, name));
        expect(() => openSafetensorsFiles(paths)).toThrow('tensor "a" is in x.safetensors and in y.safetensors');
      },
    );
  });

  const broken: [what: string, files: Record<string, string | Uint8Array>, message: string][] = [
    [
      'a missing shard',
      {
        [INDEX]: index(weightMap),
        ...{ 'model-00001-of-00002.safetensors': shards['model-00001-of-00002.safetensors'] },
      },
      '1 of 2 shards are missing: model-00002-of-00002.safetensors',
    ],
    [
      'a tensor that is not in its shard',
      { ...shards, [INDEX]: index({ ...weightMap, c: weightMap.a }) },
      'tensor "c" is missing, though model.safetensors.index.json places it there',
    ],
    [
      'a tensor in the other shard',
      { ...shards, [INDEX]: index({ a: weightMap.b, b: weightMap.b }) },
      'tensor "a" is missing',
    ],
    [
      'a shard outside the folder',
      { ...shards, [INDEX]: index({ a: '../model.safetensors' }) },
      'is not the name of a file in this folder',
    ],
    ['no weight_map', { ...shards, [INDEX]: '{}' }, 'weight_map is missing'],
    ['an index that is null', { ...shards, [INDEX]: 'null' }, 'weight_map is missing'],
    ['an index that is not JSON', { ...shards, [INDEX]: '{' }, 'not valid JSON'],
    [
      'a truncated shard',
      {
        ...shards,
        'model-00002-of-00002.safetensors': shards['model-00002-of-00002.safetensors'].subarray(0, 30),
        [INDEX]: index(weightMap),
      },
      'model-00002-of-00002.safetensors: truncated',
    ],
    ['no weights at all', { 'config.json': '{}' }, 'no weights: neither model.safetensors nor'],
  ];
  test.each(broken)('%s', async (_what, files, message) => {
    await withFolder(files, (folder) => {
      expect(() => openSafetensors(folder)).toThrow(message);
      expect(() => openSafetensors(folder)).toThrow(folder);
      expect(() => openSafetensors(folder)).toThrow(LoadError);
    });
  });

  test('a folder that does not exist', () => {
    expect(() => openSafetensors('/no/such/folder')).toThrow('/no/such/folder: not a folder that can be read (ENOENT)');
  });
});
