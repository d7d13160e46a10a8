/** Builds cuda/*.cu: with nvcc for real devices, and with the C++ compiler for the emulation, beside stand-ins for libcudart and libcublas. */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { type CompileJob, compileAll, filesWith, findCompiler, progressLine, run } from './compiler.ts';
import { parseKernelResources } from './kernel-resources.ts';

const ROOT = join(import.meta.dir, '..');
const SOURCES = join(ROOT, 'cuda');
const EMULATION = join(SOURCES, 'emulation');
/** Sonames that Bao is written against, newest first. */
export const CUDART_SONAMES = ['libcudart.so.13', 'libcudart.so.12'] as const;
export const CUBLAS_SONAMES = ['libcublas.so.13', 'libcublas.so.12'] as const;
export const CUBLASLT_SONAMES = ['libcublasLt.so.13', 'libcublasLt.so.12'] as const;
export const NCCL_SONAMES = ['libnccl.so.2'] as const;
const KERNELS = 'libbao-cuda.so';
/** Beside the kernels: what each takes of a multiprocessor. */
export const RESOURCES = 'resources.json';

const EMULATION_FLAGS = ['-std=c++20', '-O2', '-fPIC', '-ffp-contract=off', '-Wall', '-Wextra', '-Wno-unknown-pragmas'];
/** Every load and store of a kernel calls cuda/emulation/hooks.cpp; the sanitizer's own library is not used. */
const CHECKED_FLAGS = ['-O1', '-fsanitize=thread', '-DBAO_EMULATION_CHECKED'];
const CHECKED_LINK_FLAGS = ['-Wl,--wrap=memcpy,--wrap=memmove,--wrap=memset', '-Wl,--no-undefined'];
const NVCC_FLAGS = ['-std=c++20', '-O3', '--expt-relaxed-constexpr', '-Xcompiler', '-fPIC', '-Xptxas', '-v'];

/** Paths of the libraries that CUDA devices consist of. */
export interface CudaLibraries {
  cudart: readonly string[];
  cublas: readonly string[];
  cublasLt: readonly string[];
  nccl: readonly string[];
  kernels: string;
}

/** Stand-in libraries beside that for libcudart, and which files of cuda/emulation they are made of. */
const STAND_INS: Readonly<Record<string, readonly string[]>> = {
  [CUBLAS_SONAMES[0]]: ['cublas.cpp', 'gemm.cpp'],
  [CUBLASLT_SONAMES[0]]: ['cublaslt.cpp', 'gemm.cpp'],
  [NCCL_SONAMES[0]]: ['nccl.cpp'],
};

function cacheFolder(name: string): string {
  return join(process.env.BAO_CACHE_DIR || join(ROOT, '.cache'), name);
}

/** Of sources, flags and the compiler's file. */
function contentHash(compiler: string, flags: readonly string[]): string {
  const binary = realpathSync(compiler);
  const { size, mtimeMs } = statSync(binary);
  let hash = Bun.hash(JSON.stringify([flags, binary, size, mtimeMs]));
  for (const folder of [SOURCES, EMULATION]) {
    for (const file of filesWith(folder, /\.(cu|cuh|cpp|h)$/)) {
      hash = Bun.hash(basename(file), hash);
      hash = Bun.hash(readFileSync(file), hash);
    }
  }
  for (const header of ['abi.h', 'quant.h', 'sampling_row.h'])
    hash = Bun.hash(readFileSync(join(ROOT, 'cpu', header)), hash);
  return hash.toString(16).padStart(16, '0');
}

/** Builds into a folder of its own, so that a half-built one is never found. */
async function buildOnce(folder: string, build: (scratch: string) => Promise<void>): Promise<void> {
  if (existsSync(folder)) return;
  mkdirSync(dirname(folder), { recursive: true });
  const scratch = join(dirname(folder), `build-${process.pid}-${crypto.randomUUID()}`);
  mkdirSync(scratch);
  try {
    await build(scratch);
    // Where another process was faster, its folder is as good.
    if (!existsSync(folder)) renameSync(scratch, folder);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

export interface EmulationOptions {
  quiet?: boolean;
  /** Kernels that tell the emulation of every access to memory: some times slower, and stopped by what cuda/emulation/checker.h describes. */
  checked?: boolean;
}

type Progress = ReturnType<typeof progressLine>;

interface StandIns extends Omit<CudaLibraries, 'cudart' | 'kernels'> {
  cudart: string;
}

/** Stand-ins for NVIDIA's libraries, in a folder of their own; built where this content has not been built yet. */
async function ensureStandIns(compiler: string, progress: Progress): Promise<StandIns> {
  if (!existsSync(EMULATION)) throw new Error('no CUDA emulation: it is a part of the checkout, not of the package');
  const hash = contentHash(compiler, [...EMULATION_FLAGS, ...CHECKED_FLAGS, ...CHECKED_LINK_FLAGS]);
  const folder = join(cacheFolder('cuda-emulation'), hash);
  await buildOnce(folder, async (scratch) => {
    const sources = filesWith(EMULATION, /\.cpp$/);
    const isOf = (files: readonly string[]) => (source: string) => files.includes(basename(source));
    const isStandIn = isOf(Object.values(STAND_INS).flat());
    const objects = await compileInto(scratch, compiler, sources, EMULATION_FLAGS, progress);
    const link = (name: string, inputs: string[]) =>
      run(compiler, ['-shared', `-Wl,-soname,${name}`, '-Wl,-rpath,$ORIGIN', ...inputs, '-o', join(scratch, name)]);
    const objectsOf = (matches: (source: string) => boolean) => objects.filter((_, i) => matches(sources[i]!));
    await link(
      CUDART_SONAMES[0],
      objectsOf((source) => !isStandIn(source)),
    );
    for (const [soname, files] of Object.entries(STAND_INS)) {
      await link(soname, [...objectsOf(isOf(files)), join(scratch, CUDART_SONAMES[0])]);
    }
    for (const object of objects) rmSync(object);
    progress('built the stand-in CUDA libraries', true);
  });
  const at = (soname: string) => join(folder, soname);
  return {
    cudart: at(CUDART_SONAMES[0]),
    cublas: [at(CUBLAS_SONAMES[0])],
    cublasLt: [at(CUBLASLT_SONAMES[0])],
    nccl: [at(NCCL_SONAMES[0])],
  };
}

/** The kernels and the stand-in libraries for `--device cuda-emulation`, built where this content has not been built yet. */
export async function ensureCudaEmulation(options: EmulationOptions = {}): Promise<CudaLibraries> {
  const compiler = findCompiler();
  const progress = progressLine(options.quiet ?? false);
  const { cudart, ...libraries } = await ensureStandIns(compiler, progress);
  const kernels = join(dirname(cudart), options.checked ? 'checked' : 'plain');
  await buildOnce(kernels, async (scratch) => {
    const sources = filesWith(SOURCES, /\.cu$/);
    const flags = [...emulatedKernelFlags(options.checked), '-x', 'c++'];
    const objects = await compileInto(scratch, compiler, sources, flags, progress);
    await linkEmulated(compiler, objects, cudart, join(scratch, KERNELS), options.checked);
    for (const object of objects) rmSync(object);
    progress(`built the ${options.checked ? 'checked' : 'emulated'} CUDA kernels`, true);
  });
  return { ...libraries, cudart: [cudart], kernels: join(kernels, KERNELS) };
}

const emulatedKernelFlags = (checked = false) => [...EMULATION_FLAGS, ...(checked ? CHECKED_FLAGS : [])];

/** The objects of the sources, in their order. */
async function compileInto(
  folder: string,
  compiler: string,
  sources: readonly string[],
  flags: readonly string[],
  progress: Progress,
): Promise<string[]> {
  const jobs: CompileJob[] = sources.map((source) => ({
    source,
    flags: [...flags],
    object: join(folder, `${basename(source)}.o`),
  }));
  await compileAll(compiler, jobs, (done) => progress(`building the CUDA emulation: ${done} of ${jobs.length} files`));
  return jobs.map(({ object }) => object);
}

/** A library of emulated kernels, in a folder beside the stand-in libcudart. */
function linkEmulated(compiler: string, objects: string[], cudart: string, library: string, checked = false) {
  const flags = ['-shared', '-Wl,-rpath,$ORIGIN/..', ...(checked ? CHECKED_LINK_FLAGS : [])];
  return run(compiler, [...flags, ...objects, cudart, '-o', library]);
}

/** A test's .cu file, compiled and linked as the emulated kernels are, with the stand-ins that it was built with. */
export async function ensureEmulatedLibrary(source: string, checked: boolean): Promise<CudaLibraries> {
  const compiler = findCompiler();
  const progress = progressLine(true);
  const { cudart, ...libraries } = await ensureStandIns(compiler, progress);
  const hash = Bun.hash(readFileSync(source)).toString(16);
  const folder = join(dirname(cudart), `${basename(source, '.cu')}-${checked ? 'checked' : 'plain'}-${hash}`);
  await buildOnce(folder, async (scratch) => {
    const flags = [...emulatedKernelFlags(checked), '-x', 'c++'];
    const objects = await compileInto(scratch, compiler, [source], flags, progress);
    await linkEmulated(compiler, objects, cudart, join(scratch, KERNELS), checked);
  });
  return { ...libraries, cudart: [cudart], kernels: join(folder, KERNELS) };
}

/** Folders of the package "nvidia", which has many parts that need not lie in one place. */
const NVIDIA_PACKAGES =
  'import importlib.util as u; s = u.find_spec("nvidia"); print(*(s.submodule_search_locations if s else []), sep="\\n")';

/** Where the PATH's Python has the PyPI packages nvidia-*, in a virtual environment, of the user or of the system. */
function pythonPackages(): string[] {
  const python = Bun.which('python3');
  if (python === null) return [];
  return Bun.spawnSync([python, '-c', NVIDIA_PACKAGES]).stdout.toString().split('\n').filter(Boolean);
}

/** Where toolkits are: CUDA_HOME, CUDA_PATH, /usr/local/cuda, and the PyPI packages nvidia-*. */
function toolkitRoots(): string[] {
  const wheels = pythonPackages().flatMap((folder) =>
    ['cu13', 'cuda_runtime', 'cublas', 'nccl'].map((name) => join(folder, name)),
  );
  const roots = [process.env.CUDA_HOME, process.env.CUDA_PATH, '/usr/local/cuda', ...wheels];
  return roots.flatMap((root) => root || []);
}

/** nvcc of the PATH or of a toolkit; null where there is none. */
export function findNvcc(): string | null {
  return (
    Bun.which('nvcc') ??
    toolkitRoots()
      .map((root) => join(root, 'bin/nvcc'))
      .find(existsSync) ??
    null
  );
}

const LIBRARY_FOLDERS = ['lib64', 'lib', 'targets/x86_64-linux/lib', 'targets/sbsa-linux/lib'];

function inToolkit(root: string, sonames: readonly string[]): string[] {
  return LIBRARY_FOLDERS.flatMap((folder) => sonames.map((name) => join(root, folder, name))).filter(existsSync);
}

/**
 * A library's places in the order in which they are tried: beside the nvcc that builds the kernels, since these need that version of libcudart, then by
 * its sonames, which the loader may know, then where other toolkits have it.
 */
export function libraryCandidates(sonames: readonly string[]): string[] {
  const nvcc = findNvcc();
  const own = nvcc === null ? [] : inToolkit(rootOf(nvcc), sonames);
  const [cudart] = nvcc === null ? [] : inToolkit(rootOf(nvcc), CUDART_SONAMES);
  const isOfNvcc = (path: string) => cudart !== undefined && path.endsWith(cudart.slice(cudart.lastIndexOf('.')));
  const elsewhere = [...sonames, ...toolkitRoots().flatMap((root) => inToolkit(root, sonames))];
  return [...new Set([...own, ...elsewhere.filter(isOfNvcc), ...elsewhere])];
}

const rootOf = (nvcc: string) => join(dirname(realpathSync(nvcc)), '..');

/** The libcudart to link kernels with: the first of `libraryCandidates` that is a file. */
function findCudart(nvcc: string): string {
  const found = libraryCandidates(CUDART_SONAMES).find((path) => isAbsolute(path));
  if (found === undefined) {
    throw new Error(`no ${CUDART_SONAMES.join(' or ')} under ${rootOf(nvcc)} (PyPI: nvidia-cuda-runtime)`);
  }
  return found;
}

/** "sm_90a" as nvcc's -gencode. */
function gencode(arch: string): string {
  const number = /^sm_(\d+[af]?)$/.exec(arch)?.[1];
  if (number === undefined) throw new Error(`--arch ${arch}: expected sm_80, sm_90a, …`);
  return `-gencode=arch=compute_${number},code=${arch}`;
}

/** The kernels for real devices of these architectures; built where this content has not been built yet. Throws where there is no nvcc. */
export async function ensureCudaKernels(archs: readonly string[], options: { quiet?: boolean } = {}): Promise<string> {
  const nvcc = findNvcc();
  if (nvcc === null) {
    throw new Error(
      'no nvcc to build the CUDA kernels with: put it in the PATH, set CUDA_HOME, or pip install nvidia-cuda-nvcc nvidia-nvvm nvidia-cuda-crt nvidia-cuda-runtime nvidia-cuda-cccl',
    );
  }
  const cudart = findCudart(nvcc);
  const flags = [...NVCC_FLAGS, ...archs.map(gencode)];
  const folder = join(cacheFolder('cuda'), contentHash(nvcc, flags));
  await buildOnce(folder, async (scratch) => {
    const progress = progressLine(options.quiet ?? false);
    const jobs = filesWith(SOURCES, /\.cu$/).map((source) => ({
      source,
      object: join(scratch, `${basename(source)}.o`),
      flags,
    }));
    const printed = await compileAll(nvcc, jobs, (done) =>
      progress(`building the CUDA kernels for ${archs.join(', ')}: ${done} of ${jobs.length} files`),
    );
    writeFileSync(join(scratch, RESOURCES), JSON.stringify(parseKernelResources(printed), null, 2));
    const objects = jobs.map(({ object }) => object);
    // The one libcudart that the TypeScript side opens too: streams and errors are per library.
    await run(nvcc, ['-shared', '-cudart', 'none', ...objects, '-Xlinker', cudart, '-o', join(scratch, KERNELS)]);
    for (const object of objects) rmSync(object);
    progress(`built the CUDA kernels for ${archs.join(', ')}`, true);
  });
  return join(folder, KERNELS);
}

/** Architectures whose fastest instructions are only there under another name. */
const ARCH_SPECIFIC: readonly string[] = ['90', '100'];

/** The architecture to build for, of a compute capability without its dot ("90" is sm_90a). */
export function archOf(capability: string): string {
  return `sm_${capability}${ARCH_SPECIFIC.includes(capability) ? 'a' : ''}`;
}
