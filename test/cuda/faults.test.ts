import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** What the checked emulation says of each kernel of faults.cu, after its name, the block and the thread. */
const REPORTS: Readonly<Record<string, string>> = {
  read_past_end: 'thread (63, 0, 0): access of 4 bytes at ADDRESS, at the end of an allocation of 256 bytes',
  write_past_end: 'thread (63, 0, 0): access of 4 bytes at ADDRESS, at the end of an allocation of 256 bytes',
  read_before_begin: 'thread (0, 0, 0): access of 4 bytes at ADDRESS, 4 bytes before an allocation of 256 bytes',
  read_past_shared: 'thread (63, 0, 0): access of 4 bytes at byte 256 of 256 of shared memory',
  write_past_shared: 'thread (63, 0, 0): access of 4 bytes at byte 256 of 256 of shared memory',
  write_before_shared: 'thread (0, 0, 0): access of 4 bytes at byte -4 of 256 of shared memory',
  misaligned_vector: 'thread (0, 0, 0): misaligned access of 16 bytes at ADDRESS in device memory',
  misaligned_shared_vector: 'thread (0, 0, 0): misaligned access of 16 bytes at ADDRESS in shared memory',
  library_copy_past_end:
    'thread (0, 0, 0): access of 260 bytes at ADDRESS, across the end of an allocation of 256 bytes',
  uninitialised_shared: 'thread (46, 0, 0): read of byte 68 of shared memory, which nobody wrote',
  missing_syncthreads:
    'thread (32, 0, 0): race: write of byte 128 of shared memory, which thread (0, 0, 0) read with nothing in between',
  missing_syncthreads_before_reuse:
    'thread (32, 0, 0): race: read of byte 0 of shared memory, which thread (0, 0, 0) wrote',
  missing_syncwarp: 'thread (1, 0, 0): race: write of byte 4 of shared memory, which thread (0, 0, 0) read',
  missing_syncwarp_before_reuse:
    'thread (1, 0, 0): race: read of byte 0 of shared memory, which thread (0, 0, 0) wrote',
  shuffle_for_syncwarp: 'thread (31, 0, 0): race: read of byte 120 of shared memory, which thread (30, 0, 0) wrote',
  syncwarp_of_half: 'thread (31, 0, 0): race: write of byte 124 of shared memory, which thread (15, 0, 0) read',
  syncwarp_between_warps: 'thread (32, 0, 0): race: write of byte 128 of shared memory, which thread (31, 0, 0) read',
  plain_read_of_atomic:
    'thread (63, 0, 0): race: read of byte 0 of shared memory, which several threads accessed atomically',
  ldmatrix_before_syncwarp: 'race: read of byte 0 of shared memory, which thread (0, 0, 0) wrote',
  missing_syncthreads_in_device_memory:
    'race: write of byte 128 of an allocation of 256 bytes, which thread (0, 0, 0) read',
  read_before_wait: 'byte 0 of shared memory, into which thread (0, 0, 0) copies with cp.async and has not waited',
  wait_for_too_few: 'byte 128 of shared memory, into which thread (0, 0, 0) copies with cp.async and has not waited',
  wait_without_syncthreads: 'thread (1, 0, 0): race: read of byte 4 of shared memory, which thread (0, 0, 0) wrote',
  copy_into_what_is_read: 'thread (13, 0, 0): race: read of byte 200 of shared memory, which thread (12, 0, 0) wrote',
  copy_past_end: 'thread (15, 0, 0): access of 16 bytes at ADDRESS, at the end of an allocation of 256 bytes',
  blocks_write_the_same: 'write of byte 0 of an allocation of 256 bytes, which block (0, 0, 0) wrote',
  block_reads_what_another_writes: 'read of byte 0 of an allocation of 256 bytes, which block (0, 0, 0) wrote',
  block_writes_what_another_reads: 'write of byte 0 of an allocation of 256 bytes, which block (0, 0, 0) read',
};

const NAMES = Object.keys(REPORTS);

function run(how: 'broken' | 'mended'): { codes: string[]; reports: string[] } {
  const child = Bun.spawnSync([process.execPath, join(import.meta.dir, 'run-faults.ts'), how, ...NAMES], {
    env: { ...process.env, BAO_CUDA_EMULATION_DEVICES: String(NAMES.length) },
  });
  const lines = (output: Buffer) => output.toString().split('\n').filter(Boolean);
  return { codes: lines(child.stdout), reports: lines(child.stderr) };
}

describe('the checked emulation, on kernels that access memory through plain pointers', () => {
  test('every kernel of faults.cu is expected here', () => {
    const source = readFileSync(join(import.meta.dir, 'faults.cu'), 'utf8');
    expect([...source.matchAll(/__global__ void (\w+)/g)].map(([, name]) => name!)).toEqual(NAMES);
  });

  const broken = run('broken');
  test.each(NAMES.map((name, i) => [name, i] as const))('reports %s', (name, i) => {
    expect(broken.codes[i]).toBe('700');
    const report = broken.reports[i]!.replace(/0x[0-9a-f]+/, 'ADDRESS');
    expect(report).toStartWith(`CUDA emulation: kernel ${name}, block (`);
    expect(report).toContain(REPORTS[name]!);
  });

  test('says nothing of the same kernels without their faults', () => {
    expect(run('mended')).toEqual({ codes: NAMES.map(() => '0'), reports: [] });
  });
});
