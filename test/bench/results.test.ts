import { afterAll, expect, test } from 'bun:test';
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeResult } from '../../bench/results.ts';

const folder = mkdtempSync(join(tmpdir(), 'bao-results-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('a result that is written anew takes the place of the old one as a whole', async () => {
  const path = join(folder, 'new/result.json');
  await writeResult(path, 'peers', { loads: 1 });
  // What reads the old one meanwhile reads it to the end.
  const reader = openSync(path, 'r');
  await writeResult(path, 'peers', { loads: 2 });
  expect(JSON.parse(readFileSync(reader, 'utf8'))).toMatchObject({ benchmark: 'peers', loads: 1 });
  closeSync(reader);
  expect(JSON.parse(readFileSync(path, 'utf8'))).toMatchObject({ benchmark: 'peers', loads: 2 });
  expect(readdirSync(join(folder, 'new'))).toEqual(['result.json']);
});

test('no result is written where none is wanted', async () => {
  await writeResult(null, 'peers', {});
  expect(readdirSync(folder)).toEqual(['new']);
});
