/**
 * `bun scripts/check-cuda-abi.ts ROOT…`: checks the bindings of src/device/cuda against NVIDIA's headers and libraries under the given folders
 * (a toolkit, or nvidia/cu13 and nvidia/nccl of the PyPI packages nvidia-cuda-runtime, nvidia-cuda-crt, nvidia-cublas and nvidia-nccl-cu13). Needs no GPU and
 * no driver. Constants and the number and sizes of arguments are checked by the C++ compiler, exported symbols by opening the libraries. Where there is
 * no driver, what the real libraries answer then is checked too, and that a server says so and ends.
 */
import { CString, type FFIFunction, FFIType, type Pointer, ptr } from 'bun:ffi';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { CUBLAS_CONSTANTS, CUBLAS_SYMBOLS, Cublas } from '../src/device/cuda/cublas.ts';
import { CUBLASLT_CONSTANTS, CUBLASLT_SYMBOLS, CublasLt, HEURISTIC_RESULT } from '../src/device/cuda/cublas-lt.ts';
import {
  CUDART_CONSTANTS,
  CUDART_SYMBOLS,
  CudaRuntime,
  EXEC_UPDATE_RESULT_BYTES,
} from '../src/device/cuda/cuda-runtime.ts';
import { NCCL_CONSTANTS, NCCL_SYMBOLS, Nccl } from '../src/device/cuda/nccl.ts';
import { openLibrary } from '../src/device/cuda/open-library.ts';
import { CUBLAS_SONAMES, CUBLASLT_SONAMES, CUDART_SONAMES, ensureCudaEmulation, NCCL_SONAMES } from './build-cuda.ts';
import { findCompiler, run } from './compiler.ts';

/** Bytes of an argument or result by its type in the bindings. */
const SIZES: Record<string, number> = { ptr: 8, u64: 8, i64: 8, [FFIType.u64_fast]: 8, i32: 4, u32: 4 };

function sizesOf({ args = [], returns = 'void' }: FFIFunction): string {
  return [returns, ...args].map((type) => SIZES[String(type)] ?? 0).join(', ');
}

/** C++ that does not compile where the bindings are wrong. NCCL's header brings C++ overloads of cudart's names along: it is checked apart. */
function checks(
  includes: readonly string[],
  constantsTable: Readonly<Record<string, number>>,
  symbolsTable: Readonly<Record<string, FFIFunction>>,
): string {
  const constants = Object.entries(constantsTable);
  const symbols = Object.entries(symbolsTable);
  return `${includes.map((header) => `#include <${header}>`).join('\n')}
template <size_t... Bound, class Result, class... Args>
constexpr bool matches(Result (*)(Args...)) {
  constexpr size_t bound[] = {Bound...}, real[] = {sizeof(Result), sizeof(Args)...};
  if (sizeof(bound) != sizeof(real)) return false;
  for (size_t i = 0; i < sizeof...(Bound); i++) {
    if (bound[i] != real[i]) return false;
  }
  return true;
}
template <class Type>
constexpr Type* exact(Type* function) { return function; }
${constants.map(([name, value]) => `static_assert(static_cast<int>(${name}) == ${value}, "${name}");`).join('\n')}
${symbols.map(([name, spec]) => `static_assert(matches<${sizesOf(spec)}>(${exactly(name)}), "${name}");`).join('\n')}
`;
}

/** Its third argument is a struct by value, which no type of the bindings stands for. */
const INIT_RANK_CHECK =
  'static_assert(matches<4, 8, 4, NCCL_UNIQUE_ID_BYTES, 4>(exact(&ncclCommInitRank)), "ncclCommInitRank");\n';

/** Of names to which headers add templates and C++ overloads: the C function is meant. */
const OVERLOADED: Readonly<Record<string, string>> = {
  cublasGemmEx:
    'cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*, const void*, cudaDataType, int, const void*, cudaDataType, int, const void*, void*, cudaDataType, int, cublasComputeType_t, cublasGemmAlgo_t)',
  cublasGemmStridedBatchedEx:
    'cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*, const void*, cudaDataType, int, long long, const void*, cudaDataType, int, long long, const void*, void*, cudaDataType, int, long long, int, cublasComputeType_t, cublasGemmAlgo_t)',
  cudaGraphExecUpdate: 'cudaError_t (*)(cudaGraphExec_t, cudaGraph_t, cudaGraphExecUpdateResultInfo*)',
};

function exactly(name: string): string {
  const type = OVERLOADED[name];
  return type === undefined ? `exact(&${name})` : `static_cast<${type}>(&${name})`;
}

/** Structs whose fields are read by their offset. */
const LAYOUT_CHECKS = `
#include <cstddef>
static_assert(sizeof(cublasLtMatmulHeuristicResult_t) == ${HEURISTIC_RESULT.bytes}, "cublasLtMatmulHeuristicResult_t");
static_assert(offsetof(cublasLtMatmulHeuristicResult_t, algo) == 0, "algo");
static_assert(offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize) == ${HEURISTIC_RESULT.workspaceSize}, "workspaceSize");
static_assert(offsetof(cublasLtMatmulHeuristicResult_t, state) == ${HEURISTIC_RESULT.state}, "state");
static_assert(sizeof(cudaGraphExecUpdateResultInfo) == ${EXEC_UPDATE_RESULT_BYTES}, "cudaGraphExecUpdateResultInfo");
`;

function findFile(roots: readonly string[], names: readonly string[]): string {
  const folders = ['lib64', 'lib', 'targets/x86_64-linux/lib'];
  const paths = roots.flatMap((root) => folders.flatMap((folder) => names.map((name) => join(root, folder, name))));
  const found = paths.find(existsSync);
  if (!found) throw new Error(`none of ${names.join(', ')} under ${roots.join(', ')}`);
  return found;
}

interface Libraries {
  cudart: string;
  cublas: string;
  cublasLt: string;
  nccl: string;
}

/** Throws unless the call throws an error whose message begins so. */
function expectError(beginning: string, call: () => unknown): void {
  let message = 'nothing was thrown';
  try {
    call();
  } catch (error) {
    message = error instanceof Error ? error.message : String(error);
  }
  if (!message.startsWith(beginning)) throw new Error(`without a driver "${beginning}…" was expected: ${message}`);
}

/** Needs no driver. */
const WORK_WITHOUT_DRIVER = ['cudaRuntimeGetVersion'];

/** Every call of the real libraries gives a code, which becomes an error that names it. False where a driver answers: then the rest is for scripts/gpu-verify. */
function checkErrorPaths({ cudart, cublas, cublasLt, nccl }: Libraries): boolean {
  const runtime = new CudaRuntime([cudart]);
  if (runtime.functions.cudaGetDeviceCount(ptr(new Int32Array(1))) === 0) return false;
  expectError('no CUDA device: cudaGetDeviceCount: cudaError', () => runtime.selectDevice(0));
  // Big enough for whatever is written; nothing is, as there is no device.
  const scratch = ptr(new Uint8Array(4096));
  for (const [name, { args, returns }] of Object.entries(CUDART_SYMBOLS)) {
    if (returns !== 'i32' || WORK_WITHOUT_DRIVER.includes(name)) continue;
    const call = runtime.functions[name as keyof typeof CUDART_SYMBOLS];
    const code = call(...args.map((type) => (type === 'ptr' ? scratch : 0)));
    expectError(`${name}: cudaError`, () => runtime.check(name, code));
  }
  const nothing = { ptr: 0, bytes: 0 };
  expectError('cublasCreate: CUBLAS_STATUS_NOT_INITIALIZED', () => new Cublas([cublas], 0, nothing));
  expectError('cublasLtCreate: CUBLAS_STATUS_NOT_INITIALIZED', () => new CublasLt([cublasLt], 0, nothing));
  const { version } = new Nccl([nccl]);
  console.log(`libnccl ${version} answers`);
  expectError('ncclCommInitRank: unhandled cuda error', () => {
    const communication = new Nccl([nccl]);
    return communication.communicator(communication.uniqueId(), 0, 1, 0);
  });
  return true;
}

/** Past the last code that either kind of library has. */
const CODES = 1000;
const UNKNOWN = /^unrecognized|_UNKNOWN$/;

/** The emulation's libraries call errors what the real ones do. */
async function checkStandIns({ cudart, cublas, cublasLt }: Libraries): Promise<void> {
  const standIns = await ensureCudaEmulation({ quiet: true });
  const names: readonly [function_: string, real: string, standIn: readonly string[]][] = [
    ['cudaGetErrorName', cudart, standIns.cudart],
    ['cudaGetErrorString', cudart, standIns.cudart],
    ['cublasGetStatusName', cublas, standIns.cublas],
    ['cublasLtGetStatusName', cublasLt, standIns.cublasLt],
  ];
  for (const [name, real, standIn] of names) {
    const symbols = { [name]: { args: ['i32'], returns: 'ptr' } } as const;
    const [expected, actual] = [[real], standIn].map((paths) => {
      const { [name]: call } = openLibrary(name, paths, symbols);
      return (code: number) => String(new CString(call!(code) as Pointer));
    });
    let compared = 0;
    for (let code = 0; code < CODES; code++) {
      const said = actual!(code);
      if (UNKNOWN.test(said)) continue;
      compared++;
      if (said !== expected!(code))
        throw new Error(`${name}(${code}) is "${expected!(code)}", and "${said}" on the emulation`);
    }
    if (compared === 0) throw new Error(`the emulation's ${name} knows no code`);
  }
}

/** `bao serve --device cuda` with the real libraries and no driver: one sentence and exit code 1. */
function checkServer(folder: string): void {
  const child = Bun.spawnSync([process.execPath, 'src/main.ts', 'serve', 'demo', '--device', 'cuda', '--port', '0'], {
    cwd: join(import.meta.dir, '..'),
    env: { ...process.env, LD_LIBRARY_PATH: folder },
  });
  const log = child.stderr.toString();
  if (child.exitCode !== 1 || !/^bao: no CUDA device: cudaGetDeviceCount: cudaError\w+ \(\d+\), .*$/m.test(log)) {
    throw new Error(`without a driver the server ended with ${child.exitCode ?? child.signalCode}:\n${log}`);
  }
}

const roots = process.argv.slice(2);
const scratch = mkdtempSync(join(tmpdir(), 'bao-abi-'));
try {
  const includes = roots.map((root) => `-I${join(root, 'include')}`);
  const sources = {
    cuda:
      checks(
        ['cuda_runtime_api.h', 'cublas_v2.h', 'cublasLt.h'],
        { ...CUDART_CONSTANTS, ...CUBLAS_CONSTANTS, ...CUBLASLT_CONSTANTS },
        { ...CUDART_SYMBOLS, ...CUBLAS_SYMBOLS, ...CUBLASLT_SYMBOLS },
      ) + LAYOUT_CHECKS,
    nccl: checks(['nccl.h'], NCCL_CONSTANTS, NCCL_SYMBOLS) + INIT_RANK_CHECK,
  };
  for (const [name, text] of Object.entries(sources)) {
    const source = join(scratch, `${name}.cpp`);
    writeFileSync(source, text);
    await run(findCompiler(), ['-std=c++17', '-fsyntax-only', ...includes, source]);
  }
  const cudart = findFile(roots, CUDART_SONAMES);
  const cublas = findFile(roots, CUBLAS_SONAMES);
  const cublasLt = findFile(roots, CUBLASLT_SONAMES);
  const nccl = findFile(roots, NCCL_SONAMES);
  openLibrary('libcudart', [cudart], CUDART_SYMBOLS);
  openLibrary('libcublas', [cublas], CUBLAS_SYMBOLS);
  openLibrary('libcublasLt', [cublasLt], CUBLASLT_SYMBOLS);
  openLibrary('libnccl', [nccl], NCCL_SYMBOLS);
  const libraries = { cudart, cublas, cublasLt, nccl };
  await checkStandIns(libraries);
  if (checkErrorPaths(libraries)) checkServer(dirname(cudart));
  const count = (...tables: object[]) => tables.reduce((sum, table) => sum + Object.keys(table).length, 0);
  console.log(
    `${count(CUDART_SYMBOLS, CUBLAS_SYMBOLS, CUBLASLT_SYMBOLS, NCCL_SYMBOLS)} functions and ${count(CUDART_CONSTANTS, CUBLAS_CONSTANTS, CUBLASLT_CONSTANTS, NCCL_CONSTANTS)} constants agree`,
  );
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
