/**
 * Builds the CPU kernel library with the C++ compiler that is there, once per content: sources, flags, compiler.
 * Run directly it prints the library's path.
 */

import { dlopen, suffix } from 'bun:ffi';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, statSync } from 'node:fs';
import { devNull } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { cacheFolder, PACKAGE_ROOT } from '../src/package-layout.ts';
import { type CompileJob, compileAll, filesWith, findCompiler, progressLine, run } from './compiler.ts';

const SOURCES = join(PACKAGE_ROOT, 'cpu');
/** What is compiled for each instruction set: families of ops in folders of their own, and what they share. */
const KERNEL_FOLDERS = ['.', 'attention', 'linear', 'quant'].map((family) => join(SOURCES, 'kernels', family));
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
const AVX512_FP16 = [
  ...AVX512,
  '-mavx512vnni',
  '-mavx512vbmi',
  '-mavx512vbmi2',
  '-mavx512bf16',
  '-mavx512fp16',
  '-mgfni',
];
interface InstructionSet {
  flags: string[];
  /** The files of cpu/kernels where this set differs from the one below; default all. */
  only?: string[];
  /** What /proc/cpuinfo calls it. */
  features: string[];
}

/** What cpu/kernels can be compiled for, each beyond the one below. */
const INSTRUCTION_SETS: Readonly<Record<string, InstructionSet>> =
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
        avx512_fp16: {
          flags: AVX512_FP16,
          only: ['linear', 'packed_weight', 'attention'],
          features: ['avx512_vbmi2', 'avx512_fp16', 'gfni'],
        },
        avx512_amx: {
          flags: [...AVX512_FP16, '-mamx-tile', '-mamx-bf16', '-mamx-int8'],
          only: ['linear', 'packed_weight', 'quant', 'attention'],
          features: ['amx_tile', 'amx_bf16', 'amx_int8'],
        },
      }
    : { portable: { flags: [], features: [] } };

/** One file of cpu/kernels, compiled for one instruction set. */
interface KernelVersion {
  set: string;
  file: string;
}

/** What a library has. */
interface LibraryContents {
  /** Lower sets first. */
  versions: readonly KernelVersion[];
  /** The lowest set that it has all kernels for. */
  lowest: string;
}

/**
 * `best`: what is fastest here, alone. `runnable`: every set that runs here, to compare them. `all`: every set there is, for other machines too.
 */
export type InstructionSets = 'best' | 'runnable' | 'all';

/** Sets that GCC before 12 and Clang before 14 have no word for. */
const NEWEST_SETS = ['avx512_fp16', 'avx512_amx'];

/** Whether a compiler knows all sets, or all but the newest ones. */
type CompilerAge = 'knows all' | 'is older';

export async function ageOf(compiler: string): Promise<CompilerAge> {
  const newest = INSTRUCTION_SETS[NEWEST_SETS.at(-1)!];
  const check = ['-fsyntax-only', '-x', 'c++', ...(newest?.flags ?? []), devNull];
  return run(compiler, check).then(
    () => 'knows all' as const,
    () => 'is older' as const,
  );
}

/** By name; no two in different folders share one. */
function kernelSources(): Map<string, string> {
  const sources = KERNEL_FOLDERS.flatMap((folder) => filesWith(folder, /\.cpp$/));
  return new Map(sources.map((source) => [basename(source, '.cpp'), source]));
}

/** What the processor says of itself, but for what the system does not let a process use; null where the system has no such file. */
function cpuinfo(): string | null {
  if (!existsSync('/proc/cpuinfo')) return null;
  const info = readFileSync('/proc/cpuinfo', 'utf8');
  return info.includes(' amx_tile') && !grantsAmx() ? info.replaceAll(/ amx_\w+/g, '') : info;
}

/** `request_amx` of cpu/platform.cpp. */
function grantsAmx(): boolean {
  const [ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA] = [158, 0x1023, 18];
  try {
    const libc = dlopen('libc.so.6', { syscall: { args: ['i64', 'i64', 'i64'], returns: 'i64' } });
    const refused = libc.symbols.syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA);
    libc.close();
    return Number(refused) === 0;
  } catch {
    return false;
  }
}

/** Of these sets those that a processor runs; all where it does not say. */
function runnableSets(names: string[], info: string | null): string[] {
  if (info === null) return names;
  const features = new Set(info.match(/^flags\s*:(.*)$/m)?.[1]?.split(' '));
  const firstMissing = names.findIndex((name) => !INSTRUCTION_SETS[name]!.features.every((each) => features.has(each)));
  return firstMissing < 0 ? names : names.slice(0, firstMissing);
}

/** Of the sets that a processor runs the one whose kernels are fastest: `preferred_isa` of cpu/platform.cpp, in the system's words. */
function bestSet(sets: readonly string[], info: string): string {
  const dotsAreSlow = sets.at(-1) === 'avx512_bf16' && /^vendor_id\s*: GenuineIntel$/m.test(info);
  return sets.at(dotsAreSlow ? -2 : -1)!;
}

/**
 * @param info of the processor that the library is for, as /proc/cpuinfo has it; null: not known, so that `best` has to have everything
 */
export function libraryContents(
  which: InstructionSets,
  info = cpuinfo(),
  compiler: CompilerAge = 'knows all',
): LibraryContents {
  const known = Object.keys(INSTRUCTION_SETS).filter((set) => compiler === 'knows all' || !NEWEST_SETS.includes(set));
  const sets = which === 'all' ? known : runnableSets(known, info);
  const files = [...kernelSources().keys()];
  const versions = sets.flatMap((set) =>
    files.filter((file) => INSTRUCTION_SETS[set]!.only?.includes(file) ?? true).map((file) => ({ set, file })),
  );
  if (which !== 'best' || info === null) return { versions, lowest: sets[0]! };
  const best = bestSet(sets, info);
  const upToBest = sets.slice(0, sets.indexOf(best) + 1);
  const candidates = versions.filter(({ set }) => upToBest.includes(set));
  const isHighest = ({ file }: KernelVersion, index: number) =>
    !candidates.slice(index + 1).some((higher) => higher.file === file);
  return { versions: candidates.filter(isHighest), lowest: best };
}

/**
 * Path of the library, built first where this content has not been built yet; one with more instruction sets does as well. The cache is
 * `native/<hash>/` in the folder for caches (`cacheFolder`), with compiled files in `native/objects/`. Throws an Error of one sentence where no
 * compiler is found, or with the compiler's output.
 *
 * @param options.sets default `best`
 */
export async function ensureCpuLibrary(options: { quiet?: boolean; sets?: InstructionSets } = {}): Promise<string> {
  if (existsSync(PREBUILT)) return PREBUILT;
  const cache = join(cacheFolder(), 'native');
  const wanted = options.sets ?? 'best';
  const hashes = libraryHashes(wanted);
  let compiler: string;
  try {
    compiler = findCompiler();
  } catch (error) {
    // A machine without a compiler may have been given a built library, as the last stage of a container image is.
    const built = findBuilt(cache, hashes);
    if (built !== null) return built;
    throw error;
  }
  const id = compilerHash(compiler);
  const libraries = hashes.map((hash) => join(cache, `${hash}-${id}`, LIBRARY));
  const existing = libraries.find((path) => existsSync(path));
  if (existing !== undefined) return existing;

  const contents = libraryContents(wanted, cpuinfo(), await ageOf(compiler));
  const library = join(cache, `${libraryHash(contents)}-${id}`, LIBRARY);
  const scratch = join(cache, `build-${process.pid}-${crypto.randomUUID()}`);
  try {
    mkdirSync(scratch, { recursive: true });
    mkdirSync(join(cache, 'objects'), { recursive: true });
  } catch (error) {
    throw new Error(
      `The folder for built kernels, ${cache}, can't be written (${(error as Error).message}); BAO_CACHE_DIR names another.`,
    );
  }
  try {
    const jobs = compileJobs(contents, scratch);
    const built = await build(
      compiler,
      jobs,
      { scratch, objects: join(cache, 'objects') },
      progressLine(options.quiet ?? false),
    );
    mkdirSync(dirname(library), { recursive: true });
    renameSync(built, library);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return library;
}

/** Path of the library if this machine has it; nothing is built. */
export function findCpuLibrary(): string | null {
  return existsSync(PREBUILT) ? PREBUILT : findBuilt(join(cacheFolder(), 'native'), libraryHashes('best'));
}

/** Of the libraries that will do. */
function libraryHashes(wanted: InstructionSets): string[] {
  const kinds: InstructionSets[] = ['all', 'runnable', 'best'];
  const ages: CompilerAge[] = ['knows all', 'is older'];
  const contents = kinds
    .slice(0, kinds.indexOf(wanted) + 1)
    .flatMap((which) => ages.map((age) => libraryContents(which, cpuinfo(), age)));
  const sources = sourcesHash();
  return contents.map((each) => libraryHash(each, sources));
}

/** Of everything that decides what is built, but the compiler. */
function libraryHash(contents: LibraryContents, sources = sourcesHash()): string {
  return hex(Bun.hash(JSON.stringify([FLAGS, KERNEL_FLAGS, INSTRUCTION_SETS, contents]), sources));
}

function sourcesHash(): bigint {
  return contentHash([SOURCES, ...KERNEL_FOLDERS].flatMap((folder) => filesWith(folder, /\.(cpp|h)$/)));
}

function contentHash(files: readonly string[]): bigint {
  let hash = 0n;
  for (const file of files) {
    hash = BigInt(Bun.hash(basename(file), hash));
    hash = BigInt(Bun.hash(readFileSync(file), hash));
  }
  return hash;
}

function hex(hash: number | bigint): string {
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

/** The first of these libraries that is there, whatever compiler made it. */
function findBuilt(cache: string, hashes: readonly string[]): string | null {
  const folders = existsSync(cache) ? readdirSync(cache) : [];
  const paths = hashes.flatMap((hash) =>
    folders.filter((name) => name.startsWith(`${hash}-`)).map((name) => join(cache, name, LIBRARY)),
  );
  return paths.find((path) => existsSync(path)) ?? null;
}

/** The versions of kernels, and every other source once. */
export function compileJobs({ versions, lowest }: LibraryContents, scratch: string): CompileJob[] {
  const sources = kernelSources();
  const jobs = versions.map(({ set, file }) => ({
    source: sources.get(file)!,
    object: join(scratch, `${file}.${set}.o`),
    flags: [...FLAGS, ...KERNEL_FLAGS, ...INSTRUCTION_SETS[set]!.flags],
  }));
  const list = versions.map(({ set, file }) => `KERNELS(${set}, ${file})`).join(' ');
  for (const source of filesWith(SOURCES, /\.cpp$/)) {
    const name = basename(source, '.cpp');
    const defines = name === 'kernel_table' ? [`-DBAO_KERNELS=${list}`, `-DBAO_LOWEST=${lowest}`] : [];
    jobs.push({ source, object: join(scratch, `${name}.o`), flags: [...FLAGS, ...defines] });
  }
  // The largest files first, so that no core is left alone with one at the end.
  return jobs.sort((a, b) => statSync(b.source).size - statSync(a.source).size);
}

/** A source and the headers of the library that it includes, directly or not. */
function filesOf(source: string, found = new Set<string>()): Set<string> {
  if (found.has(source)) return found;
  found.add(source);
  for (const [, name] of readFileSync(source, 'utf8').matchAll(/^#include "(.+)"$/gm))
    filesOf(join(dirname(source), name!), found);
  return found;
}

/** Compiles what no build has compiled before, and links. */
async function build(
  compiler: string,
  jobs: readonly CompileJob[],
  folders: { scratch: string; objects: string },
  progress: (text: string, last?: boolean) => void,
): Promise<string> {
  const started = performance.now();
  const kept = (job: CompileJob) => {
    const hash = Bun.hash(JSON.stringify([compilerHash(compiler), job.flags]), contentHash([...filesOf(job.source)]));
    return join(folders.objects, `${basename(job.object, '.o')}-${hex(hash)}.o`);
  };
  const missing = jobs.filter((job) => !existsSync(kept(job)));
  try {
    await compileAll(compiler, missing, (done) =>
      progress(`building the CPU kernels with ${basename(compiler)}: ${done} of ${missing.length} files`),
    );
  } finally {
    // Where one fails, the others need not be compiled again.
    for (const job of missing) if (existsSync(job.object)) renameSync(job.object, kept(job));
  }
  const library = join(folders.scratch, LIBRARY);
  await run(compiler, ['-shared', '-pthread', ...jobs.map(kept), '-o', library]);
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
