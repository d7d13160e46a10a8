import { describe, expect, test } from 'bun:test';
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { LoadError } from '../../src/loader/load-error.ts';
import { embeddedModels, findLocalFolder, resolveModelFolder } from '../../src/loader/model-folder.ts';
import { withFolder } from './safetensors-file.ts';

const MODELS = resolve(import.meta.dir, '../../models');

/** Runs with another working directory. */
async function inFolder<Result>(folder: string, run: () => Result | Promise<Result>): Promise<Result> {
  const before = process.cwd();
  process.chdir(folder);
  try {
    return await run();
  } finally {
    process.chdir(before);
  }
}

describe('resolveModelFolder', () => {
  test('an embedded model by name, from any working directory', async () => {
    await withFolder({}, (folder) =>
      inFolder(folder, async () => expect(await resolveModelFolder('demo')).toBe(join(MODELS, 'demo'))),
    );
    expect(embeddedModels()).toEqual(['demo', 'demo-draft']);
  });

  test("a folder of the user's own with that name needs ./", async () => {
    await withFolder({}, (folder) =>
      inFolder(folder, async () => {
        mkdirSync('demo');
        mkdirSync('other');
        expect(await resolveModelFolder('demo')).toBe(join(MODELS, 'demo'));
        expect(await resolveModelFolder('./demo')).toBe(resolve('demo'));
        expect(await resolveModelFolder('other')).toBe(resolve('other'));
        expect(await resolveModelFolder(resolve('other'))).toBe(resolve('other'));
      }),
    );
  });

  test.each([
    ['./no-such-folder', 'the model folder does not exist'],
    ['/no/such/folder', 'the model folder does not exist'],
    ['~/no-such-folder-here', 'the model folder does not exist'],
    ['a/b/c', 'neither a folder nor a Hub id (org/name); embedded models: demo, demo-draft'],
    ['org/na me', 'neither a folder nor a Hub id'],
    ['org/../x', 'neither a folder nor a Hub id'],
    ['', 'must be a folder, a Hub id or the name of an embedded model'],
  ])('%p is refused', async (model, message) => {
    await expect(resolveModelFolder(model)).rejects.toThrow(message);
    await expect(resolveModelFolder(model)).rejects.toBeInstanceOf(LoadError);
  });

  test('a file is not a folder', async () => {
    const message = 'not a folder; a model is one with config.json and *.safetensors, GGUF files are not read.';
    await withFolder({ 'x.gguf': '', weights: '' }, (folder) =>
      inFolder(folder, () => {
        for (const path of [join(folder, 'x.gguf'), 'x.gguf']) expect(() => findLocalFolder(path)).toThrow(message);
        expect(() => findLocalFolder('weights')).toThrow('config.json and *.safetensors.');
      }),
    );
  });
});
