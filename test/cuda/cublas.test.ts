/** The stand-in libcublas against OpenBLAS: results of sgemm that SciPy gave, recorded in sgemm-openblas.json. */
import { ptr } from 'bun:ffi';
import { afterAll, describe, expect, test } from 'bun:test';
import { ensureCudaEmulation } from '../../scripts/build-cuda.ts';
import { CUBLAS_CONSTANTS, CUBLAS_SYMBOLS } from '../../src/device/cuda/cublas.ts';
import { CudaRuntime } from '../../src/device/cuda/cuda-runtime.ts';
import { openLibrary } from '../../src/device/cuda/open-library.ts';
import type { FloatDType } from '../../src/device/dtype.ts';
import { toBytes } from '../device/cuda/op-runner.ts';
import recorded from './sgemm-openblas.json';

const libraries = await ensureCudaEmulation({ quiet: true });
const runtime = new CudaRuntime(libraries.cudart);
runtime.selectDevice(0);
const stream = runtime.createStream();
const cublas = openLibrary('libcublas', libraries.cublas, CUBLAS_SYMBOLS);
const words = new BigUint64Array(1);
expect(cublas.cublasCreate_v2(ptr(words))).toBe(0);
const handle = Number(words[0]);
expect(cublas.cublasSetStream_v2(handle, stream)).toBe(0);
afterAll(() => cublas.cublasDestroy_v2(handle));

const { cudaMemcpyAsync } = runtime.functions;
const { CUBLAS_OP_N, CUBLAS_OP_T, CUDA_R_32F, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT } = CUBLAS_CONSTANTS;
const TYPES: Record<FloatDType, number> = {
  float32: CUDA_R_32F,
  float16: CUBLAS_CONSTANTS.CUDA_R_16F,
  bfloat16: CUBLAS_CONSTANTS.CUDA_R_16BF,
};

function upload(values: Float32Array, dtype: FloatDType): number {
  const bytes = toBytes[dtype](values);
  const address = runtime.malloc(Math.max(4, bytes.length));
  runtime.check('cudaMemcpyAsync', cudaMemcpyAsync(address, ptr(bytes), bytes.length, 1, stream));
  return address;
}

/** Whole numbers that every type holds, as the recording has them. */
const whole = (length: number, step: number, modulus: number) =>
  Float32Array.from({ length }, (_, i) => ((i * step) % modulus) - Math.floor(modulus / 2));

type Recorded = (typeof recorded.cases)[number];

/** @param before what C holds */
function gemm(c: Recorded, dtype: FloatDType, before: Float32Array): { status: number; result: Float32Array } {
  const [columnsA, columnsB] = [c.transA ? c.m : c.k, c.transB ? c.k : c.n];
  const a = upload(whole(c.ldA * columnsA, 7, 13), dtype);
  const b = upload(whole(c.ldB * columnsB, 5, 11), dtype);
  const out = upload(before, 'float32');
  const [alpha, beta] = [new Float32Array([c.alpha]), new Float32Array([c.beta])];
  const status = cublas.cublasGemmEx(
    ...[handle, c.transA ? CUBLAS_OP_T : CUBLAS_OP_N, c.transB ? CUBLAS_OP_T : CUBLAS_OP_N, c.m, c.n, c.k, ptr(alpha)],
    ...[a, TYPES[dtype], c.ldA, b, TYPES[dtype], c.ldB, ptr(beta), out, CUDA_R_32F, c.ldC],
    ...[CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT],
  );
  const result = new Float32Array(before.length);
  runtime.check('cudaMemcpyAsync', cudaMemcpyAsync(ptr(result), out, result.byteLength, 2, stream));
  return { status, result };
}

const name = ({ m, n, k, transA, transB, alpha, beta }: Recorded) =>
  `[${m}, ${n}, ${k}], ${transA ? 'T' : 'N'}${transB ? 'T' : 'N'}, alpha ${alpha}, beta ${beta}`;

describe(`cublasGemmEx gives what OpenBLAS's sgemm gives (${recorded.source})`, () => {
  for (const each of recorded.cases) {
    test.each(['float32', 'float16', 'bfloat16'] as const)(`${name(each)}, %s`, (dtype) => {
      const { status, result } = gemm(each, dtype, whole(each.ldC * each.n, 3, 9));
      expect(status).toBe(0);
      expect([...result]).toEqual(each.c);
    });
  }

  test('with beta 0 what C holds is not read', () => {
    for (const each of recorded.cases.filter(({ beta }) => beta === 0)) {
      const { result } = gemm(each, 'float32', new Float32Array(each.ldC * each.n).fill(Number.NaN));
      result.forEach((value, i) => {
        expect(value).toBe(i % each.ldC < each.m ? each.c[i]! : Number.NaN);
      });
    }
  });

  test('a leading dimension that is too small is refused, as xerbla would', () => {
    const each = recorded.cases.find(({ m, n, k }) => m > 1 && n > 1 && k > 1)!;
    const before = whole(each.ldC * each.n, 3, 9);
    for (const wrong of [{ ldA: 1 }, { ldB: 1 }, { ldC: each.m - 1 }]) {
      expect(gemm({ ...each, ...wrong }, 'float32', before).status).toBe(7);
    }
  });
});
