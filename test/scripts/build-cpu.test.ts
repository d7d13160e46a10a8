import { afterAll, describe, expect, test } from 'bun:test';
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { compileJobs, ensureCpuLibrary, INSTRUCTION_SETS } from '../../scripts/build-cpu.ts';
import { compileAll, findCompiler } from '../../scripts/compiler.ts';

const SCRIPT = join(import.meta.dir, '../../scripts/build-cpu.ts');
const scratch = mkdtempSync(join(tmpdir(), 'bao-build-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** Runs the script by itself. */
function run(env: Record<string, string>): { code: number; stdout: string; stderr: string } {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, SCRIPT], { env: { ...process.env, ...env } });
  return { code: exitCode, stdout: stdout.toString().trim(), stderr: stderr.toString().trim() };
}

describe('the CPU library', () => {
  test('has sources that are right for every instruction set, also those that do not run here', async () => {
    const jobs = compileJobs(Object.keys(INSTRUCTION_SETS), scratch);
    const foreign = jobs.filter(
      ({ object }) =>
        /\.(avx512|avx512_vnni|avx512_vbmi|avx512_bf16)\.o$/.test(object) || /kernel_table\.o$/.test(object),
    );
    expect(foreign.length).toBeGreaterThan(process.arch === 'x64' ? 5 : 0);
    const check = foreign.map((job) => ({ ...job, flags: [...job.flags, '-fsyntax-only'] }));
    await compileAll(findCompiler(), check, () => {});
  });

  test('is used without a compiler where it was built before', async () => {
    const library = await ensureCpuLibrary();
    const cache = dirname(dirname(dirname(library)));
    expect(basename(dirname(dirname(library)))).toBe('native');
    expect(run({ CXX: 'no-such-compiler', BAO_CACHE_DIR: cache })).toEqual({ code: 0, stdout: library, stderr: '' });
  });

  test('without a compiler and without a built library fails in one sentence', () => {
    const { code, stderr } = run({ CXX: 'no-such-compiler', BAO_CACHE_DIR: join(scratch, 'empty') });
    expect(code).toBe(1);
    expect(stderr).toStartWith('no C++ compiler: no-such-compiler not found. Install one (');
    expect(stderr).not.toContain('\n');
  });

  test('tells a pipe too what it is at, and what the compiler says', () => {
    const compiler = join(scratch, 'broken-compiler');
    writeFileSync(compiler, '#!/bin/sh\necho "fatal: no headers" >&2\nexit 1\n', { mode: 0o755 });
    const { code, stderr } = run({ CXX: compiler, BAO_CACHE_DIR: join(scratch, 'unbuilt') });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^building the CPU kernels with broken-compiler: 0 of \d+ files\n/);
    expect(stderr).toContain('fatal: no headers');
  });

  test('says which folder it cannot write', () => {
    const file = join(scratch, 'file');
    Bun.spawnSync(['touch', file]);
    chmodSync(file, 0o444);
    const { code, stderr } = run({ BAO_CACHE_DIR: file });
    expect(code).toBe(1);
    expect(stderr).toContain('BAO_CACHE_DIR');
    expect(existsSync(join(file, 'native'))).toBe(false);
  });
});
