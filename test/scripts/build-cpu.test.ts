import { afterAll, describe, expect, test } from 'bun:test';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { ageOf, compileJobs, ensureCpuLibrary, libraryContents } from '../../scripts/build-cpu.ts';
import { run as compile, compileAll, findCompiler } from '../../scripts/compiler.ts';
import { createCpuDevice } from '../../src/device/cpu-device.ts';
import { CpuProbe } from '../../src/device/cpu-probe.ts';

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
    const age = await ageOf(findCompiler());
    const jobs = compileJobs(libraryContents('all', null, age), scratch);
    const foreign = jobs.filter(
      ({ object }) =>
        /\.(avx512|avx512_vnni|avx512_vbmi|avx512_bf16|avx512_fp16|avx512_amx)\.o$/.test(object) ||
        /kernel_table\.o$/.test(object),
    );
    expect(foreign.length).toBeGreaterThan(process.arch === 'x64' ? 5 : 0);
    const check = foreign.map((job) => ({ ...job, flags: [...job.flags, '-fsyntax-only'] }));
    await compileAll(findCompiler(), check, () => {});
  });

  const AVX2 = 'avx2 fma f16c';
  const AVX512 = `${AVX2} avx512f avx512bw avx512dq avx512vl`;
  const processors: [string, string, string, string[]][] = [
    ['an old one', 'GenuineIntel', 'sse2', ['portable']],
    ['AVX2', 'AuthenticAMD', AVX2, ['avx2']],
    ['AVX-512', 'GenuineIntel', AVX512, ['avx512']],
    ['VNNI', 'GenuineIntel', `${AVX512} avx512_vnni`, ['avx512', 'avx512_vnni']],
    [
      'all of Intel',
      'GenuineIntel',
      `${AVX512} avx512_vnni avx512vbmi avx512_bf16`,
      ['avx512', 'avx512_vnni', 'avx512_vbmi'],
    ],
    [
      'Intel with halves',
      'GenuineIntel',
      `${AVX512} avx512_vnni avx512vbmi avx512_bf16 avx512_vbmi2 avx512_fp16 gfni`,
      ['avx512', 'avx512_vnni', 'avx512_vbmi', 'avx512_fp16'],
    ],
    [
      'Intel with AMX',
      'GenuineIntel',
      `${AVX512} avx512_vnni avx512vbmi avx512_bf16 avx512_vbmi2 avx512_fp16 gfni amx_bf16 amx_tile amx_int8`,
      ['avx512', 'avx512_vbmi', 'avx512_amx'],
    ],
    [
      'all of AMD',
      'AuthenticAMD',
      `${AVX512} avx512_vnni avx512vbmi avx512_bf16`,
      ['avx512', 'avx512_vnni', 'avx512_vbmi', 'avx512_bf16'],
    ],
  ];
  test.if(process.arch === 'x64').each(processors)(
    'has each kernel once, as the processor likes it best: %s',
    (_, vendor, flags, sets) => {
      const info = `vendor_id\t: ${vendor}\nflags\t\t: fpu ${flags} movbe\n`;
      const { versions, lowest } = libraryContents('best', info);
      expect(lowest).toBe(sets.at(-1)!);
      expect([...new Set(versions.map(({ set }) => set))]).toEqual(sets);
      const files = versions.map(({ file }) => file).sort();
      expect(files).toEqual(
        libraryContents('all')
          .versions.filter(({ set }) => set === 'portable')
          .map(({ file }) => file)
          .sort(),
      );
      const runnable = libraryContents('runnable', info);
      for (const version of versions) expect(runnable.versions).toContainEqual(version);
      expect(runnable.lowest).toBe('portable');
    },
  );

  test.if(process.arch === 'x64')('leaves out what an older compiler has no word for', () => {
    const flags = `${AVX512} avx512_vnni avx512vbmi avx512_bf16 avx512_vbmi2 avx512_fp16 gfni amx_bf16 amx_tile amx_int8`;
    const info = `vendor_id\t: GenuineIntel\nflags\t\t: ${flags}\n`;
    const setsOf = (which: 'best' | 'runnable' | 'all') => [
      ...new Set(libraryContents(which, info, 'is older').versions.map(({ set }) => set)),
    ];
    expect(setsOf('best')).toEqual(['avx512', 'avx512_vnni', 'avx512_vbmi']);
    for (const which of ['runnable', 'all'] as const) expect(setsOf(which)).toHaveLength(6);
  });

  test('has everything where the system does not tell what its processor is', () => {
    expect(libraryContents('best', null)).toEqual(libraryContents('all'));
  });

  describe('for this machine', () => {
    const cache = join(scratch, 'best');
    const objects = join(cache, 'native', 'objects');
    /** Objects of this machine, taken from where tests have built them, so that this build takes no time. */
    const build = async () => {
      const tested = join(dirname(dirname(await ensureCpuLibrary({ sets: 'runnable', quiet: true }))), 'objects');
      mkdirSync(objects, { recursive: true });
      for (const name of readdirSync(tested)) writeFileSync(join(objects, name), readFileSync(join(tested, name)));
      const { code, stdout, stderr } = run({ BAO_CACHE_DIR: cache });
      expect({ code, stderr }).toMatchObject({ code: 0 });
      return { library: stdout, stderr };
    };

    test('has the kernels that the native code prefers here, and refuses lower ones', async () => {
      const { library } = await build();
      const probe = new CpuProbe(library, 1 << 20);
      const device = createCpuDevice({ libraryPath: library, threads: 1 });
      expect(device.isa).toBe(probe.isa);
      device.close();
      probe.close();
      if (libraryContents('best').lowest === 'portable') return;
      expect(() => createCpuDevice({ libraryPath: library, threads: 1, isa: 'portable' })).toThrow(
        "portable's kernels can't be had",
      );
    });

    test('is made of the files that were compiled before; one with more instruction sets is used in its place', async () => {
      rmSync(cache, { recursive: true, force: true });
      // kernel_table.cpp alone is another one for each choice of sets.
      expect((await build()).stderr).toMatch(/^(building .*: 0 of 1 files\n)?built /);
      const more = await ensureCpuLibrary({ sets: 'runnable', quiet: true });
      expect(run({}).stdout).toBe(more);
    });
  });

  const showsAmx = process.platform === 'linux' && readFileSync('/proc/cpuinfo', 'utf8').includes(' amx_tile');
  test.if(showsAmx)('is one without AMX where the system refuses its registers', async () => {
    const refuse = join(scratch, 'refuse-matrix-registers');
    await compile(findCompiler(), ['-x', 'c', join(import.meta.dir, 'refuse-matrix-registers.c'), '-o', refuse]);
    const library = await ensureCpuLibrary({ sets: 'runnable', quiet: true });
    const lookAround = `
      import { libraryContents } from '${SCRIPT}';
      import { createCpuDevice } from '${join(import.meta.dir, '../../src/device/cpu-device.ts')}';
      const device = createCpuDevice({ libraryPath: '${library}', threads: 1 });
      console.log(libraryContents('best').lowest, device.isa);
      device.close();`;
    const { exitCode, stdout, stderr } = Bun.spawnSync([refuse, process.execPath, '-e', lookAround]);
    expect(stderr.toString()).toBe('');
    expect(stdout.toString().trim()).toBe('avx512_fp16 avx512_fp16');
    expect(exitCode).toBe(0);
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
