/**
 * `bun scripts/check-cuda-abi.ts ROOT…`: checks the bindings of src/device/cuda against NVIDIA's headers and libraries under the given folders
 * (a toolkit, or nvidia/cu13 of the PyPI packages nvidia-cuda-runtime, nvidia-cuda-crt and nvidia-cublas). Needs no GPU and no driver.
 * Constants and the number and sizes of arguments are checked by the C++ compiler, exported symbols by opening the libraries.
 */
import type { FFIFunction } from 'bun:ffi';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CUBLAS_CONSTANTS, CUBLAS_SYMBOLS } from '../src/device/cuda/cublas.ts';
import { CUDART_CONSTANTS, CUDART_SYMBOLS } from '../src/device/cuda/cuda-runtime.ts';
import { openLibrary } from '../src/device/cuda/open-library.ts';
import { CUBLAS_SONAMES, CUDART_SONAMES } from './build-cuda.ts';
import { findCompiler, run } from './compiler.ts';

/** Bytes of an argument or result by its type in the bindings. */
const SIZES: Record<string, number> = { ptr: 8, u64: 8, i32: 4, u32: 4 };

function sizesOf({ args = [], returns = 'void' }: FFIFunction): string {
  return [returns, ...args].map((type) => SIZES[String(type)] ?? 0).join(', ');
}

function checks(): string {
  const constants = Object.entries({ ...CUDART_CONSTANTS, ...CUBLAS_CONSTANTS });
  const symbols: [string, FFIFunction][] = Object.entries({ ...CUDART_SYMBOLS, ...CUBLAS_SYMBOLS });
  return `#include <cuda_runtime_api.h>
#include <cublas_v2.h>
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

/** Headers add templates and C++ overloads to two names; the C function is meant. */
function exactly(name: string): string {
  if (name === 'cublasGemmEx') {
    const type =
      'cublasStatus_t (*)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void*, const void*, cudaDataType, int, const void*, cudaDataType, int, const void*, void*, cudaDataType, int, cublasComputeType_t, cublasGemmAlgo_t)';
    return `static_cast<${type}>(&${name})`;
  }
  return `exact(&${name})`;
}

function findFile(roots: readonly string[], names: readonly string[]): string {
  const folders = ['lib64', 'lib', 'targets/x86_64-linux/lib'];
  const paths = roots.flatMap((root) => folders.flatMap((folder) => names.map((name) => join(root, folder, name))));
  const found = paths.find(existsSync);
  if (!found) throw new Error(`none of ${names.join(', ')} under ${roots.join(', ')}`);
  return found;
}

const roots = process.argv.slice(2);
const scratch = mkdtempSync(join(tmpdir(), 'bao-abi-'));
try {
  const source = join(scratch, 'checks.cpp');
  writeFileSync(source, checks());
  const includes = roots.map((root) => `-I${join(root, 'include')}`);
  await run(findCompiler(), ['-std=c++17', '-fsyntax-only', ...includes, source]);
  openLibrary('libcudart', [findFile(roots, CUDART_SONAMES)], CUDART_SYMBOLS);
  openLibrary('libcublas', [findFile(roots, CUBLAS_SONAMES)], CUBLAS_SYMBOLS);
  console.log(
    `${Object.keys(CUDART_SYMBOLS).length + Object.keys(CUBLAS_SYMBOLS).length} functions and ${Object.keys(CUDART_CONSTANTS).length + Object.keys(CUBLAS_CONSTANTS).length} constants agree`,
  );
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
