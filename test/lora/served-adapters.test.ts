import { describe, expect, test } from 'bun:test';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BaoConfig } from '../../src/config/bao-config.ts';
import { ValidationError } from '../../src/errors/validation-error.ts';
import { AdapterTable } from '../../src/lora/adapter-table.ts';
import type { LoRARequest } from '../../src/lora/lora-request.ts';
import { AdapterNotFoundError, ServedAdapters } from '../../src/lora/served-adapters.ts';
import { withFolder } from '../loader/safetensors-file.ts';

const config = (enableLora = true) =>
  ({
    model: { servedModelName: ['demo', 'other'] },
    lora: {
      enableLora,
      modules: [
        { id: 1, name: 'one', path: '/one', root: 'one', baseModelName: null },
        { id: 2, name: 'two', path: '/two', root: './two', baseModelName: 'other' },
      ],
    },
  }) as unknown as BaoConfig;

class Engine {
  readonly loaded = new Map<number, string>();
  refusal: Error | null = null;
  pause: Promise<void> = Promise.resolve();

  async addLora({ id, name }: LoRARequest): Promise<void> {
    await this.pause;
    if (this.refusal !== null) throw this.refusal;
    this.loaded.set(id, name);
  }

  async removeLora(id: number): Promise<void> {
    this.loaded.delete(id);
  }
}

const FILES = { 'adapter_config.json': '{}' };

describe('the table', () => {
  test('has what the configuration names, and gives new ids behind', () => {
    const table = AdapterTable.fromConfig(config());
    expect(table.list()).toEqual([
      { id: 1, name: 'one', path: '/one', root: 'one', parent: 'demo' },
      { id: 2, name: 'two', path: '/two', root: './two', parent: 'other' },
    ]);
    expect([table.newId(), table.newId()]).toEqual([3, 4]);
    expect(table.get('three')).toBeNull();
  });

  test('is one for all who share its memory', async () => {
    const table = AdapterTable.fromConfig(config());
    const other = new AdapterTable(table.buffer);
    expect(other.list()).toEqual(table.list());
    table.set({ id: 7, name: 'one', path: '/1', root: '1', parent: 'demo' });
    expect(other.get('one')!.id).toBe(7);
    other.delete('two');
    expect(table.list().map(({ name }) => name)).toEqual(['one']);
    expect(other.newId()).toBe(3);
    expect(table.newId()).toBe(4);
  });

  test('is changed by one at a time', async () => {
    const table = new AdapterTable();
    const other = new AdapterTable(table.buffer);
    const order: string[] = [];
    const first = Promise.withResolvers<void>();
    const a = table.exclusively(async () => {
      order.push('a begins');
      await first.promise;
      order.push('a ends');
    });
    const b = other.exclusively(async () => {
      order.push('b');
    });
    await Bun.sleep(10);
    first.resolve();
    await Promise.all([a, b]);
    expect(order).toEqual(['a begins', 'a ends', 'b']);
    expect(table.exclusively(() => Promise.reject(new Error('no')))).rejects.toThrow('no');
    expect(await other.exclusively(async () => 1)).toBe(1);
  });
});

describe('loading and unloading', () => {
  test('a name is known to all once every core has the adapter', () =>
    withFolder(FILES, async (folder) => {
      const engine = new Engine();
      const adapters = new ServedAdapters(engine, config());
      const elsewhere = new ServedAdapters(engine, config(), new AdapterTable(adapters.table.buffer));
      const loaded = Promise.withResolvers<void>();
      engine.pause = loaded.promise;
      const loading = adapters.load({ name: 'new', path: folder });
      await Bun.sleep(1);
      expect(elsewhere.get('new')).toBeNull();
      loaded.resolve();
      await loading;
      expect(elsewhere.get('new')).toEqual({ id: 3, name: 'new', path: folder, root: folder, parent: 'demo' });
      await elsewhere.unload('new');
      expect(adapters.get('new')).toBeNull();
      expect(engine.loaded.size).toBe(0);
    }));

  test('in place: another id for the same name, and the old weights go', () =>
    withFolder(FILES, async (folder) => {
      const engine = new Engine();
      const adapters = new ServedAdapters(engine, config());
      await adapters.load({ name: 'new', path: folder });
      expect(adapters.load({ name: 'new', path: folder })).rejects.toThrow(
        "The lora adapter 'new' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.",
      );
      await adapters.load({ name: 'new', path: folder, loadInplace: true });
      expect([...engine.loaded]).toEqual([[4, 'new']]);
      expect(adapters.list().map(({ name }) => name)).toEqual(['one', 'two', 'new']);
    }));

  test('of two loads of one name at once, on two front ends, one is refused', () =>
    withFolder(FILES, async (folder) => {
      const engine = new Engine();
      const adapters = new ServedAdapters(engine, config());
      const elsewhere = new ServedAdapters(engine, config(), new AdapterTable(adapters.table.buffer));
      const results = await Promise.allSettled(
        [adapters, elsewhere].map((each) => each.load({ name: 'n', path: folder })),
      );
      expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
      expect(engine.loaded.size).toBe(1);
    }));

  test('ensure loads once, and again from another path', () =>
    withFolder(FILES, async (folder) => {
      mkdirSync(join(folder, 'b'));
      writeFileSync(join(folder, 'b/adapter_config.json'), '{}');
      const adapters = new ServedAdapters(new Engine(), config());
      const both = await Promise.all([1, 2].map(() => adapters.ensure({ name: 'n', path: folder })));
      expect(both[0]).toEqual(both[1]!);
      expect((await adapters.ensure({ name: 'n', path: join(folder, 'b') })).id).not.toBe(both[0]!.id);
    }));

  test('what the engine refuses is not served', () =>
    withFolder(FILES, async (folder) => {
      const engine = new Engine();
      const adapters = new ServedAdapters(engine, config());
      engine.refusal = new ValidationError('wrong shape');
      expect(adapters.load({ name: 'n', path: folder })).rejects.toThrow('wrong shape');
      expect(adapters.get('n')).toBeNull();
    }));

  test('refused', async () => {
    const adapters = new ServedAdapters(new Engine(), config());
    const refusals: [name: string, path: string, error: typeof ValidationError, text: string][] = [
      ['', 'x', ValidationError, "Both 'lora_name' and 'lora_path' must be provided."],
      ['x', '', ValidationError, "Both 'lora_name' and 'lora_path' must be provided."],
      ['demo', 'x', ValidationError, "The name 'demo' is that of the base model."],
      ['x', '/nowhere', AdapterNotFoundError, 'Loading lora x failed: No adapter found for /nowhere'],
      ['x', 'org/name', AdapterNotFoundError, 'Loading lora x failed: No adapter found for org/name'],
      ['x', 'models/demo', AdapterNotFoundError, 'No adapter found'],
      ['x', 'a\0b', AdapterNotFoundError, 'No adapter found'],
      ['x', `/${'long'.repeat(2000)}`, AdapterNotFoundError, 'No adapter found'],
    ];
    for (const [name, path, type, text] of refusals) {
      const error = await adapters.load({ name, path }).catch((thrown: unknown) => thrown);
      expect(error).toBeInstanceOf(type);
      expect((error as Error).message).toContain(text);
    }
    expect(adapters.unload('')).rejects.toThrow("'lora_name' needs to be provided to unload a LoRA adapter.");
    expect(adapters.unload('none')).rejects.toThrow("The lora adapter 'none' cannot be found.");
    const off = new ServedAdapters(new Engine(), config(false));
    expect(off.load({ name: 'x', path: 'demo-pirate' })).rejects.toThrow('LoRA is not enabled');
  });
});
