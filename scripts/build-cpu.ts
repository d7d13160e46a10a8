/**
 * Builds the CPU kernel library with the C++ compiler that is there, once per content: sources, flags, compiler.
 * Run directly it prints the library's path.
 */

import { suffix } from 'bun:ffi';
import { existsSync, mkdirSync, readFileSync, realpathSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { cacheFolder, PACKAGE_ROOT } from '../src/package-layout.ts';
import { type CompileJob, compileAll, filesWith, findCompiler, progressLine, run } from './compiler.ts';

const SOURCES = join(PACKAGE_ROOT, 'cpu');
const LIBRARY = `libbao-cpu.${suffix}`;
/** The library of an executable, which has no sources. */
const PREBUILT = join(PACKAGE_ROOT, 'prebuilt', LIBRARY);

/** No fast-math: reductions keep their written order, and a product is fused with a sum only where the code says `fma`. */
const FLAGS = [
  '-std=c++17',
  '-O2',
  '-fPIC',
  '-fvisibility=hidden',
  '-fno-math-errno',
  '-fno-trapping-math',
  '-ffp-contract=off',
  '-pthread',
  '-Wall',
  '-Wextra',
];
/** GCC's own AVX-512 header reads a variable before it is set, on purpose (GCC bug 105593). */
const KERNEL_FLAGS = ['-fno-exceptions', '-fno-rtti', '-Wno-uninitialized', '-Wno-maybe-uninitialized', '-Wno-psabi'];

const AVX2 = ['-mavx2', '-mfma', '-mf16c'];
const AVX512 = [...AVX2, '-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mprefer-vector-width=512'];
/** What cpu/kernels is compiled for: the flags, and the files where not all differ from the set below. */
const INSTRUCTION_SETS: Record<string, { flags: string[]; only?: string[] }> =
  process.arch === 'x64'
    ? {
        portable: { flags: [] },
        avx2: { flags: AVX2 },
        avx512: { flags: AVX512 },
        avx512_bf16: { flags: [...AVX512, '-mavx512bf16', '-mavx512vnni'], only: ['linear', 'quant'] },
      }
    : { portable: { flags: [] } };

/**
 * Path of the library, built first where this content has not been built yet. The cache is `native/<hash>/` in the folder
 * for caches (`cacheFolder`). Throws an Error of one sentence where no compiler is found, or with the compiler's output.
 */
export async function ensureCpuLibrary(options: { quiet?: boolean } = {}): Promise<string> {
  if (existsSync(PREBUILT)) return PREBUILT;
  const compiler = findCompiler();
  const cache = join(cacheFolder(), 'native');
  const folder = join(cache, contentHash(compiler));
  const library = join(folder, LIBRARY);
  if (existsSync(library)) return library;

  const scratch = join(cache, `build-${process.pid}-${crypto.randomUUID()}`);
  mkdirSync(scratch, { recursive: true });
  try {
    const built = await build(compiler, scratch, progressLine(options.quiet ?? false));
    mkdirSync(folder, { recursive: true });
    renameSync(built, library);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return library;
}

/** The compiler counts by its file's identity, so that a cache hit needs no run of it. */
function contentHash(compiler: string): string {
  const binary = realpathSync(compiler);
  const { size, mtimeMs } = statSync(binary);
  let hash = Bun.hash(JSON.stringify([FLAGS, KERNEL_FLAGS, INSTRUCTION_SETS, binary, size, mtimeMs, process.platform]));
  for (const folder of [SOURCES, join(SOURCES, 'kernels')]) {
    for (const file of filesWith(folder, /\.(cpp|h)$/)) {
      hash = Bun.hash(basename(file), hash);
      hash = Bun.hash(readFileSync(file), hash);
    }
  }
  return hash.toString(16).padStart(16, '0');
}

function compileJobs(scratch: string): CompileJob[] {
  const jobs: CompileJob[] = [];
  for (const source of filesWith(join(SOURCES, 'kernels'), /\.cpp$/)) {
    const name = basename(source, '.cpp');
    for (const [isa, { flags, only }] of Object.entries(INSTRUCTION_SETS)) {
      if (only && !only.includes(name)) continue;
      const object = join(scratch, `${name}.${isa}.o`);
      jobs.push({ source, object, flags: [...FLAGS, ...KERNEL_FLAGS, ...flags] });
    }
  }
  for (const source of filesWith(SOURCES, /\.cpp$/)) {
    jobs.push({ source, object: join(scratch, `${basename(source, '.cpp')}.o`), flags: FLAGS });
  }
  // The largest files first, so that no core is left alone with one at the end.
  return jobs.sort((a, b) => statSync(b.source).size - statSync(a.source).size);
}

async function build(compiler: string, scratch: string, progress: (text: string, last?: boolean) => void) {
  const started = performance.now();
  const jobs = compileJobs(scratch);
  await compileAll(compiler, jobs, (done) =>
    progress(`building the CPU kernels with ${basename(compiler)}: ${done} of ${jobs.length} files`),
  );
  const library = join(scratch, LIBRARY);
  await run(compiler, ['-shared', '-pthread', ...jobs.map((job) => job.object), '-o', library]);
  progress(`built the CPU kernels in ${((performance.now() - started) / 1000).toFixed(1)} s`, true);
  return library;
}

if (import.meta.main) {
  try {
    console.log(await ensureCpuLibrary());
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  }
}
