import { expect, test } from 'bun:test';
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { checkLibraryHash } from '../../src/structured-output/guidance-library.ts';

const FOLDER = resolve(import.meta.dir, '../../vendor/llguidance/linux-x64');
const FILE = 'libbao_llguidance.so';

test('the library in vendor is the one whose hash is noted', () => {
  expect(() => checkLibraryHash(join(FOLDER, FILE))).not.toThrow();
});

test('another one is not loaded', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-vendor-'));
  try {
    copyFileSync(join(FOLDER, 'SHA256SUMS'), join(folder, 'SHA256SUMS'));
    writeFileSync(join(folder, FILE), 'something else');
    expect(() => checkLibraryHash(join(folder, FILE))).toThrow(/the SHA-256 of .* is [0-9a-f]{64} and should be/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
