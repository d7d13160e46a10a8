import { afterAll, expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { instanceFiles, readInstances } from '../../bench/grammars/instances.ts';
import { measureInstances } from '../../bench/grammars/measure-instances.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';

const folder = mkdtempSync(join(tmpdir(), 'bao-instances-'));
afterAll(() => rmSync(folder, { recursive: true }));

const write = (name: string, text: string) => Bun.write(join(folder, name), text);
await write(
  'a.json',
  '{"schema": {"type": "integer"}, "tests": [{"valid": true, "data": 12}, {"valid": false, "data": 1.50}]}',
);
await write(
  'b.json',
  '{"schema": {"type": "array", "uniqueItems": true}, "tests": [{"valid": false, "data": [1, 1]}]}',
);
await write('c.json', '{"schema": {"type": "bogus"}, "tests": []}');

test('instances are as they were written', async () => {
  expect(await readInstances(folder, 'a.json')).toEqual({
    name: 'a.json',
    schema: { type: 'integer' },
    instances: [
      { valid: true, text: '12' },
      { valid: false, text: '1.50' },
    ],
  });
  await write('no-tests.json', '{"schema": {}}');
  expect(readInstances(folder, 'no-tests.json')).rejects.toThrow('no "schema" or no "tests"');
  rmSync(join(folder, 'no-tests.json'));
});

test('files are drawn at random, the same for a seed, none twice', () => {
  expect(instanceFiles(folder, null, 0)).toEqual(['a.json', 'b.json', 'c.json']);
  expect(instanceFiles(folder, 2, 1)).toEqual(instanceFiles(folder, 2, 1));
  expect(new Set(instanceFiles(folder, 9, 2)).size).toBe(3);
});

test('schemas that are taken, read loosely or refused, and their instances told apart', async () => {
  const config = await new EngineArgs({ model: 'demo' }).createEngineConfig();
  const options = { folder, backend: 'guidance' as const, numSchemas: null, seed: 0 };
  expect(await measureInstances(config, { ...options, strict: false, indent: 0 })).toMatchObject({
    ...{ num_schemas: 3, num_accepted: 2, num_loose: 1, num_refused: 1, num_xgrammar: 0 },
    ...{ num_valid: 1, num_invalid: 2, valid_accepted: 1, invalid_rejected: 0.5 },
  });
  expect(await measureInstances(config, { ...options, strict: true, indent: 2 })).toMatchObject({
    ...{ num_accepted: 1, num_loose: 0, num_refused: 2, num_invalid: 1, invalid_rejected: 1 },
  });
});
