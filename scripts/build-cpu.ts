/**
 * Builds the CPU kernel library with the C++ compiler that is there, once per content: sources, flags, compiler.
 * Run directly it prints the library's path.
 */

import { suffix } from 'bun:ffi';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, statSync } from 'node:fs';
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
interface InstructionSet {
  flags: string[];
  /** The files of cpu/kernels where this set differs from the one below; default all. */
  only?: string[];
  /** What /proc/cpuinfo calls it. */
  features: string[];
}

/** What cpu/kernels can be compiled for, each beyond the one below. */
export const INSTRUCTION_SETS: Readonly<Record<string, InstructionSet>> =
  process.arch === 'x64'
    ? {
        portable: { flags: [], features: [] },
        avx2: { flags: AVX2, features: ['avx2', 'fma', 'f16c'] },
        avx512: { flags: AVX512, features: ['avx512f', 'avx512bw', 'avx512dq', 'avx512vl'] },
        avx512_vnni: { flags: [...AVX512, '-mavx512vnni'], only: ['quant'], features: ['avx512_vnni'] },
        avx512_vbmi: {
          flags: [...AVX512, '-mavx512vnni', '-mavx512vbmi'],
          only: ['attention', 'fp8_linear'],
          features: ['avx512vbmi'],
        },
        avx512_bf16: {
          flags: [...AVX512, '-mavx512vnni', '-mavx512vbmi', '-mavx512bf16'],
          only: ['linear'],
          features: ['avx512_bf16'],
        },
      }
    : { portable: { flags: [], features: [] } };

/** The sets that this machine runs; all where it does not say. */
function supportedSets(): string[] {
  const names = Object.keys(INSTRUCTION_SETS);
  if (!existsSync('/proc/cpuinfo')) return names;
  const features = new Set(
    readFileSync('/proc/cpuinfo', 'utf8')
      .match(/^flags\s*:(.*)$/m)?.[1]
      ?.split(' '),
  );
  const firstMissing = names.findIndex((name) => !INSTRUCTION_SETS[name]!.features.every((each) => features.has(each)));
  return firstMissing < 0 ? names : names.slice(0, firstMissing);
}

/**
 * Path of the library, built first where this content has not been built yet: for the instruction sets of this machine, or for all, so that
 * it runs on others too. The cache is `native/<hash>/` in the folder for caches (`cacheFolder`). Throws an Error of one sentence where no compiler is found, or with the compiler's output.
 */
export async function ensureCpuLibrary(
  options: { quiet?: boolean; allInstructionSets?: boolean } = {},
): Promise<string> {
  if (existsSync(PREBUILT)) return PREBUILT;
  const sets = options.allInstructionSets ? Object.keys(INSTRUCTION_SETS) : supportedSets();
  const cache = join(cacheFolder(), 'native');
  const sources = sourcesHash(sets);
  let compiler: string;
  try {
    compiler = findCompiler();
  } catch (error) {
    // A machine without a compiler may have been given a built library, as the last stage of a container image is.
    const built = findBuilt(cache, sources);
    if (built !== null) return built;
    throw error;
  }
  const folder = join(cache, `${sources}-${compilerHash(compiler)}`);
  const library = join(folder, LIBRARY);
  if (existsSync(library)) return library;

  const scratch = join(cache, `build-${process.pid}-${crypto.randomUUID()}`);
  try {
    mkdirSync(scratch, { recursive: true });
  } catch (error) {
    throw new Error(
      `The folder for built kernels, ${cache}, can't be written (${(error as Error).message}); BAO_CACHE_DIR names another.`,
    );
  }
  try {
    const built = await build(compiler, sets, scratch, progressLine(options.quiet ?? false));
    mkdirSync(folder, { recursive: true });
    renameSync(built, library);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return library;
}

/** Path of the library if this machine has it; nothing is built. */
export function findCpuLibrary(): string | null {
  return existsSync(PREBUILT) ? PREBUILT : findBuilt(join(cacheFolder(), 'native'), sourcesHash(supportedSets()));
}

/** Of everything that decides what is built, but the compiler. */
function sourcesHash(sets: readonly string[]): string {
  let hash = Bun.hash(JSON.stringify([FLAGS, KERNEL_FLAGS, sets, INSTRUCTION_SETS, process.platform]));
  for (const folder of [SOURCES, join(SOURCES, 'kernels')]) {
    for (const file of filesWith(folder, /\.(cpp|h)$/)) {
      hash = Bun.hash(basename(file), hash);
      hash = Bun.hash(readFileSync(file), hash);
    }
  }
  return hash.toString(16).padStart(16, '0');
}

/** By its file's identity, so that a cache hit needs no run of it. */
function compilerHash(compiler: string): string {
  const binary = realpathSync(compiler);
  const { size, mtimeMs } = statSync(binary);
  return Bun.hash(JSON.stringify([binary, size, mtimeMs]))
    .toString(16)
    .slice(0, 8);
}

/** A library of these sources, whatever compiler made it. */
function findBuilt(cache: string, sources: string): string | null {
  const folders = existsSync(cache) ? readdirSync(cache).filter((name) => name.startsWith(`${sources}-`)) : [];
  return folders.map((name) => join(cache, name, LIBRARY)).find((path) => existsSync(path)) ?? null;
}

/** Every source once, those of cpu/kernels once for each set. */
export function compileJobs(sets: readonly string[], scratch: string): CompileJob[] {
  const jobs: CompileJob[] = [];
  const defines = sets.map((set) => `-DBAO_WITH_${set.toUpperCase()}`);
  for (const source of filesWith(join(SOURCES, 'kernels'), /\.cpp$/)) {
    const name = basename(source, '.cpp');
    for (const isa of sets) {
      const { flags, only } = INSTRUCTION_SETS[isa]!;
      if (only && !only.includes(name)) continue;
      const object = join(scratch, `${name}.${isa}.o`);
      jobs.push({ source, object, flags: [...FLAGS, ...KERNEL_FLAGS, ...flags] });
    }
  }
  for (const source of filesWith(SOURCES, /\.cpp$/)) {
    jobs.push({ source, object: join(scratch, `${basename(source, '.cpp')}.o`), flags: [...FLAGS, ...defines] });
  }
  // The largest files first, so that no core is left alone with one at the end.
  return jobs.sort((a, b) => statSync(b.source).size - statSync(a.source).size);
}

async function build(
  compiler: string,
  sets: readonly string[],
  scratch: string,
  progress: (text: string, last?: boolean) => void,
) {
  const started = performance.now();
  const jobs = compileJobs(sets, scratch);
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
