import { expect, test } from 'bun:test';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { cacheFolder, PACKAGE_ROOT, SOURCE_URL } from '../src/package-layout.ts';

test('what is built goes beside a checkout, and to the user’s folder for an installed package', () => {
  expect(cacheFolder({})).toBe(join(PACKAGE_ROOT, '.cache'));
  expect(cacheFolder({ BAO_CACHE_DIR: '/elsewhere' }, '/app/node_modules/bao')).toBe('/elsewhere');
  expect(cacheFolder({}, '/app/node_modules/bao')).toBe(join(homedir(), '.cache', 'bao'));
  expect(cacheFolder({ XDG_CACHE_HOME: '/caches' }, '/no/such/checkout')).toBe('/caches/bao');
});

test('Workers’ entry points are found from the sources’ address', () => {
  for (const entry of [
    'engine/core/core-worker.ts',
    'server/process/api-server-worker.ts',
    'tokenizer/encode-worker.ts',
  ]) {
    expect(existsSync(new URL(entry, SOURCE_URL)), entry).toBe(true);
  }
});
