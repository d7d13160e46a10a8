/** The declarations of src/device/cuda, held against the sources of the kernels. NVIDIA's libraries: scripts/check-cuda-abi.ts, failures.test.ts. */

import { type FFIFunction, FFIType } from 'bun:ffi';
import { expect, test } from 'bun:test';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { KERNEL_SYMBOLS } from '../../../src/device/cuda/cuda-kernels.ts';

const ROOT = resolve(import.meta.dir, '../../..');

/** Names of the bindings' types for C's. */
const TYPES: Readonly<Record<string, string>> = {
  int32_t: 'i32',
  uint32_t: 'u32',
  int64_t: 'i64',
  float: 'f32',
  void: 'void',
  cudaStream_t: 'ptr',
};
const NAMES: Readonly<Record<string, string>> = { [String(FFIType.i64_fast)]: 'i64' };

function typeOf(declaration: string): string {
  if (declaration.includes('*')) return 'ptr';
  const words = declaration
    .replace(/\[\[.*?\]\]/, '')
    .trim()
    .split(/\s+/);
  return TYPES[words[0] === 'const' ? words[1]! : words[0]!] ?? `unknown: ${declaration}`;
}

/** By name: result and arguments of each function that a .cu file exports. */
function exported(): Record<string, string[]> {
  const found: Record<string, string[]> = {};
  for (const file of readdirSync(join(ROOT, 'cuda')).filter((name) => name.endsWith('.cu'))) {
    const text = readFileSync(join(ROOT, 'cuda', file), 'utf8');
    const declarations = [...text.matchAll(/^BAO_EXPORT ([\w*]+(?: \*?)?)(bao_\w+)\(([^)]*)\)/gm)];
    expect(declarations.length, file).toBe(text.match(/^BAO_EXPORT/gm)?.length ?? 0);
    for (const [, result, name, args] of declarations)
      found[name!] = [typeOf(result!), ...args!.split(',').map((arg) => typeOf(arg))];
  }
  return found;
}

function bound({ args = [], returns = 'void' }: FFIFunction): string[] {
  return [returns, ...args].map((type) => NAMES[String(type)] ?? String(type));
}

test('every function that the kernels export is bound, with the types that it has', () => {
  const bindings = Object.fromEntries(Object.entries(KERNEL_SYMBOLS).map(([name, spec]) => [name, bound(spec)]));
  expect(bindings).toEqual(exported());
});

test("every library is opened with a table that a test holds against the library's own declarations", () => {
  const folder = join(ROOT, 'src/device/cuda');
  const opened = readdirSync(folder).flatMap((file) => {
    const text = readFileSync(join(folder, file), 'utf8');
    expect(text.includes('dlopen('), `${file} opens libraries itself`).toBe(file === 'open-library.ts');
    return [...text.matchAll(/openLibrary(?:<[^(]*>)?\('(\w[\w-]*)'.*?(\w+_SYMBOLS)/gs)].map(
      ([, name, table]) => `${name} ${table}`,
    );
  });
  expect(opened.toSorted()).toEqual([
    'libbao-cuda KERNEL_SYMBOLS',
    'libcublas CUBLAS_SYMBOLS',
    'libcublasLt CUBLASLT_SYMBOLS',
    'libcudart CUDART_SYMBOLS',
    'libnccl NCCL_SYMBOLS',
  ]);
});
