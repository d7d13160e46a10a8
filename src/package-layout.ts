/**
 * Where the files lie that come with Bao. scripts/build-executable.ts puts a module of the same exports in this one's place, since an
 * executable has its files inside. Imports nothing but what Bun brings: it is loaded before dependencies are installed.
 */
import { accessSync, constants } from 'node:fs';
import { join, resolve, sep } from 'node:path';
import { userCacheFolder } from './user-cache-folder.ts';

/** Folder of the checkout or the installed package: `models/`, `vendor/`, `cpu/`. */
export const PACKAGE_ROOT = resolve(import.meta.dir, '..');

/** Base of Workers' entry points: `engine/core/core-worker.ts`. */
export const SOURCE_URL = new URL('.', import.meta.url).href;

/**
 * Folder for what is built or unpacked: `BAO_CACHE_DIR`, `.cache` of a checkout, else `~/.cache/bao` (an installed package may be read-only, and
 * the next install would delete what is in it).
 */
export function cacheFolder(
  environment: Readonly<Record<string, string | undefined>> = process.env,
  root = PACKAGE_ROOT,
): string {
  if (environment.BAO_CACHE_DIR) return environment.BAO_CACHE_DIR;
  if (!root.split(sep).includes('node_modules') && isWritable(root)) return join(root, '.cache');
  return userCacheFolder(environment);
}

function isWritable(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
