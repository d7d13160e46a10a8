import { expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const FOLDER = resolve(import.meta.dir, '../../vendor/llguidance/linux-x64');

test('the library in vendor is the one whose hash is noted', () => {
  const [hash, file] = readFileSync(join(FOLDER, 'SHA256SUMS'), 'utf8').trim().split(/\s+/);
  const found = new Bun.CryptoHasher('sha256').update(readFileSync(join(FOLDER, file!))).digest('hex');
  expect(found).toBe(hash!);
});
