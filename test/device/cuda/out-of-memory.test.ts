import { expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Outcome } from './run-out-of-memory.ts';

const folder = mkdtempSync(join(tmpdir(), 'bao-memory-'));
const child = Bun.spawnSync([process.execPath, join(import.meta.dir, 'run-out-of-memory.ts')], {
  env: {
    ...process.env,
    BAO_CUDA_EMULATION_MEMORY: String(32 << 20),
    BAO_CUDA_EMULATION_FAIL_FILE: join(folder, 'failures'),
  },
});
rmSync(folder, { recursive: true });
const lines = child.stdout.toString().split('\n').filter(Boolean);
const outcomes = new Map(lines.map((line) => JSON.parse(line) as Outcome).map((outcome) => [outcome.name, outcome]));

/** Of small blocks that are kept for others. */
const POOLED_BYTES = 1 << 17;

test.each(['a weight', 'a quantized weight', 'a weight of fp8', 'a vector', 'pinned memory'])(
  '%s that there is no room for is refused, and nothing of it is kept',
  (name) => {
    const { takenBytes, ...outcome } = outcomes.get(name)!;
    expect(outcome).toEqual({ name, thrown: 'OutOfMemoryError', heldBytes: 0 });
    expect(takenBytes).toBeLessThan(POOLED_BYTES);
  },
);

test('small blocks that were freed give way to a large one', () => {
  const name = 'small blocks that were freed give way to a large one';
  expect(outcomes.get(name)).toEqual({ name, thrown: null, heldBytes: 0, takenBytes: 0 });
});

test('graphs give way to memory that is needed, and steps go on without', () => {
  const { value, thrown } = outcomes.get('graphs give way to memory that is needed')!;
  expect(thrown).toBeNull();
  expect(value).toEqual({ graphs: expect.any(Number), left: 0 });
  expect((value as { graphs: number }).graphs).toBeGreaterThan(0);
  expect(child.stderr.toString()).toContain('Memory runs out: 1 CUDA graphs are given up, and no more are made');
});

test('an op whose workspace can not grow is refused, and smaller ones go on', () => {
  const { value, thrown } = outcomes.get('a workspace that can not grow')!;
  expect({ value, thrown }).toEqual({ value: ['OutOfMemoryError', 'OutOfMemoryError'], thrown: null });
});
