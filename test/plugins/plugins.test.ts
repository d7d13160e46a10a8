import { afterAll, describe, expect, test } from 'bun:test';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Hono } from 'hono';
import { ConfigError } from '../../src/config/config-error.ts';
import { addPluginRoutes, loadPlugins } from '../../src/plugins/plugins.ts';

const folders: string[] = [];
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

/** A folder that a server could be started in, with installed packages, each of which has a plugin with a route of the package's name. */
function folderWith(manifest: object, packages: Record<string, object> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'bao-plugins-'));
  folders.push(folder);
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest));
  for (const [name, ownManifest] of Object.entries(packages)) {
    const home = join(folder, 'node_modules', name);
    mkdirSync(home, { recursive: true });
    writeFileSync(join(home, 'package.json'), JSON.stringify({ name, main: 'plugin.js', ...ownManifest }));
    writeFileSync(
      join(home, 'plugin.js'),
      `module.exports = { name: '${name}', register: (c) => c.registerRoutes((app) => app.get('/${name}', (r) => r.text('here'))) };`,
    );
  }
  return folder;
}

async function statusOf(path: string): Promise<number> {
  const app = new Hono();
  addPluginRoutes(app);
  return (await app.request(path)).status;
}

describe('installed packages', () => {
  test('with the keyword are plugins; others, and those that are no dependency, are left alone', async () => {
    const keywords = ['bao-plugin'];
    const folder = folderWith(
      { dependencies: { wanted: '1', other: '1', absent: '1' }, optionalDependencies: { 'wanted-too': '1' } },
      { wanted: { keywords }, 'wanted-too': { keywords }, other: { keywords: ['llm'] }, stray: { keywords } },
    );
    await loadPlugins([], folder);
    const paths = ['/wanted', '/wanted-too', '/other', '/stray'];
    expect(await Promise.all(paths.map(statusOf))).toEqual([200, 200, 404, 404]);
  });

  test('are found by name too, keyword or not', async () => {
    await loadPlugins(['named'], folderWith({}, { named: {} }));
    expect(await statusOf('/named')).toBe(200);
  });

  test('a manifest that is no JSON is named', async () => {
    const folder = folderWith({});
    writeFileSync(join(folder, 'package.json'), '{');
    const error = await loadPlugins([], folder).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as Error).message).toStartWith(`${join(folder, 'package.json')} is not valid JSON`);
  });
});

test('a module that is no plugin is named, with what it should be', async () => {
  const folder = folderWith({});
  writeFileSync(join(folder, 'empty.ts'), 'export const name = 1;');
  expect(loadPlugins(['./empty.ts'], folder)).rejects.toThrow(
    "Plugin ./empty.ts can't be loaded: its default export is not { name, register(context) }",
  );
});
