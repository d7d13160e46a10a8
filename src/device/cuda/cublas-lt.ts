import { CString, type FFIFunction, FFIType, type Pointer, ptr } from 'bun:ffi';
import type { NativeFunction } from '../cpu-library.ts';
import type { DevicePtr } from '../device.ts';
import type { FloatDType } from '../dtype.ts';
import { CUBLAS_CONSTANTS } from './cublas.ts';
import { NoCudaDeviceError } from './no-cuda-device.ts';
import { openLibrary } from './open-library.ts';

/** The functions of libcublasLt that are called, as cublasLt.h declares them. Each gives a cublasStatus_t unless it says otherwise. */
export const CUBLASLT_SYMBOLS = {
  cublasLtCreate: { args: ['ptr'], returns: 'i32' },
  cublasLtDestroy: { args: ['ptr'], returns: 'i32' },
  cublasLtGetVersion: { args: [], returns: FFIType.u64_fast },
  cublasLtGetStatusName: { args: ['i32'], returns: 'ptr' },
  cublasLtMatmulDescCreate: { args: ['ptr', 'i32', 'i32'], returns: 'i32' },
  cublasLtMatmulDescDestroy: { args: ['ptr'], returns: 'i32' },
  cublasLtMatmulDescSetAttribute: { args: ['ptr', 'i32', 'ptr', 'u64'], returns: 'i32' },
  cublasLtMatrixLayoutCreate: { args: ['ptr', 'i32', 'u64', 'u64', 'i64'], returns: 'i32' },
  cublasLtMatrixLayoutDestroy: { args: ['ptr'], returns: 'i32' },
  cublasLtMatmulPreferenceCreate: { args: ['ptr'], returns: 'i32' },
  cublasLtMatmulPreferenceDestroy: { args: ['ptr'], returns: 'i32' },
  cublasLtMatmulPreferenceSetAttribute: { args: ['ptr', 'i32', 'ptr', 'u64'], returns: 'i32' },
  cublasLtMatmulAlgoGetHeuristic: {
    args: ['ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'i32', 'ptr', 'ptr'],
    returns: 'i32',
  },
  cublasLtMatmul: {
    args: [
      ...(['ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr'] as const),
      ...(['ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'ptr', 'u64', 'ptr'] as const),
    ],
    returns: 'i32',
  },
} as const satisfies Record<string, FFIFunction>;

/** Constants of cublasLt.h and library_types.h, under their names there. */
export const CUBLASLT_CONSTANTS = {
  CUBLASLT_MATMUL_DESC_TRANSA: 3,
  CUBLASLT_MATMUL_DESC_EPILOGUE: 7,
  CUBLASLT_MATMUL_DESC_BIAS_POINTER: 8,
  CUBLASLT_MATMUL_DESC_A_SCALE_POINTER: 17,
  CUBLASLT_MATMUL_DESC_B_SCALE_POINTER: 18,
  CUBLASLT_EPILOGUE_DEFAULT: 1,
  CUBLASLT_EPILOGUE_BIAS: 4,
  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: 1,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: 5,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: 6,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: 7,
  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: 8,
  CUDA_R_8F_E4M3: 28,
} as const;

/** Bytes of cublasLtMatmulHeuristicResult_t, and where what is read of it lies. The algorithm comes first. */
export const HEURISTIC_RESULT = { bytes: 96, workspaceSize: 64, state: 72 } as const;

type MatrixType = FloatDType | 'fp8_e4m3';

const DATA_TYPES: Record<MatrixType, number> = {
  float32: CUBLAS_CONSTANTS.CUDA_R_32F,
  bfloat16: CUBLAS_CONSTANTS.CUDA_R_16BF,
  float16: CUBLAS_CONSTANTS.CUDA_R_16F,
  fp8_e4m3: CUBLASLT_CONSTANTS.CUDA_R_8F_E4M3,
};

const NOT_SUPPORTED = 15;
/** The first release whose attributes have the numbers above; major * 10000 + minor * 100 + patch. */
const MIN_VERSION = 120_000;
/** Products whose algorithm is remembered; finding one takes tens of microseconds. */
const MAX_PLANS = 1024;
/** What cuBLAS makes use of at most. */
const MAX_ALIGNMENT = 256;

/** out[m, n] = x[m, k] · w[n, k]ᵀ + bias, row-major; rows of x and out `ld` elements apart. */
export interface LtProduct {
  dtype: MatrixType;
  outDtype: FloatDType;
  shape: readonly [m: number, n: number, k: number];
  x: readonly [ptr: DevicePtr, ld: number];
  w: DevicePtr;
  out: readonly [ptr: DevicePtr, ld: number];
  /** [n] of the type of out; 0: none. */
  bias: DevicePtr;
  /** Of fp8 matrices: float32 on the device, what x and w are multiplied with. */
  scales?: readonly [x: DevicePtr, w: DevicePtr];
}

/** A product that an algorithm has been found for. */
interface Plan {
  desc: number;
  w: number;
  x: number;
  out: number;
  /** cublasLtMatmulHeuristicResult_t, which begins with the algorithm. */
  result: Uint8Array;
}

function alignmentOf(address: number): number {
  let alignment = 1;
  while (alignment < MAX_ALIGNMENT && address % (2 * alignment) === 0) alignment *= 2;
  return alignment;
}

/** A cublasLt handle for one stream: products whose bias is added before they are rounded, and products of fp8. Throws where a call fails. */
export class CublasLt {
  readonly #functions: Record<keyof typeof CUBLASLT_SYMBOLS, NativeFunction>;
  readonly #handle: number;
  readonly #stream: number;
  readonly #workspace: { ptr: number; bytes: number };
  /** By product; null: cublasLt has no algorithm for it. The one used longest ago first. */
  readonly #plans = new Map<string, Plan | null>();
  readonly #word = new BigUint64Array(1);
  readonly #factors = new Float32Array([1, 0]);

  constructor(candidates: readonly string[], stream: number, workspace: { ptr: number; bytes: number }) {
    this.#functions = openLibrary('libcublasLt', candidates, CUBLASLT_SYMBOLS);
    const version = this.#functions.cublasLtGetVersion();
    if (version < MIN_VERSION) {
      throw new NoCudaDeviceError(`libcublasLt is of version ${version}, at least ${MIN_VERSION} is needed`);
    }
    this.#stream = stream;
    this.#workspace = workspace;
    this.#handle = this.#created('cublasLtCreate', this.#functions.cublasLtCreate(ptr(this.#word)));
  }

  /** Enqueues the product; false where cublasLt has no algorithm for it, and nothing was enqueued. */
  product(product: LtProduct): boolean {
    const { x, w, out, bias, scales } = product;
    const plan = this.#planOf(product);
    if (plan === null) return false;
    const { CUBLASLT_MATMUL_DESC_BIAS_POINTER, ...constants } = CUBLASLT_CONSTANTS;
    if (bias !== 0) this.#setAddress(plan.desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    if (scales !== undefined) {
      this.#setAddress(plan.desc, constants.CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, scales[0]);
      this.#setAddress(plan.desc, constants.CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, scales[1]);
    }
    const alpha = ptr(this.#factors);
    const status = this.#functions.cublasLtMatmul(
      ...[this.#handle, plan.desc, alpha, w, plan.w, x[0], plan.x, alpha + 4],
      ...[out[0], plan.out, out[0], plan.out, ptr(plan.result), this.#workspace.ptr, this.#workspace.bytes],
      this.#stream,
    );
    this.#check('cublasLtMatmul', status);
    return true;
  }

  /** Without looking at codes: a device that failed refuses all of it. */
  close(): void {
    for (const plan of this.#plans.values()) if (plan !== null) this.#destroy(plan);
    this.#plans.clear();
    this.#functions.cublasLtDestroy(this.#handle);
  }

  #planOf(product: LtProduct): Plan | null {
    const { dtype, outDtype, shape, x, w, out, bias } = product;
    const alignments = [w, x[0], out[0]].map(alignmentOf);
    const key = [dtype, outDtype, ...shape, x[1], out[1], bias !== 0, ...alignments].join();
    const known = this.#plans.get(key);
    this.#plans.delete(key);
    const plan = known === undefined ? this.#makePlan(product, alignments) : known;
    this.#plans.set(key, plan);
    if (this.#plans.size > MAX_PLANS) {
      const [oldest, forgotten] = this.#plans.entries().next().value!;
      this.#plans.delete(oldest);
      if (forgotten !== null) this.#destroy(forgotten);
    }
    return plan;
  }

  /** Read as column-major, the row-major x is xᵀ and w is wᵀ: outᵀ[n, m] = w · xᵀ is a product of A = wᵀ, transposed, and B = xᵀ. */
  #makePlan({ dtype, outDtype, shape: [m, n, k], x, out, bias }: LtProduct, alignments: readonly number[]) {
    const f = this.#functions;
    const { CUBLAS_COMPUTE_32F, CUDA_R_32F, CUBLAS_OP_T } = CUBLAS_CONSTANTS;
    const c = CUBLASLT_CONSTANTS;
    const layout = (type: MatrixType, rows: number, cols: number, ld: number) =>
      this.#created(
        'cublasLtMatrixLayoutCreate',
        f.cublasLtMatrixLayoutCreate(ptr(this.#word), DATA_TYPES[type], rows, cols, ld),
      );
    const plan: Plan = {
      desc: this.#created(
        'cublasLtMatmulDescCreate',
        f.cublasLtMatmulDescCreate(ptr(this.#word), CUBLAS_COMPUTE_32F, CUDA_R_32F),
      ),
      w: layout(dtype, k, n, k),
      x: layout(dtype, k, m, x[1]),
      out: layout(outDtype, n, m, out[1]),
      result: new Uint8Array(HEURISTIC_RESULT.bytes),
    };
    this.#setI32(plan.desc, c.CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    const epilogue = bias === 0 ? c.CUBLASLT_EPILOGUE_DEFAULT : c.CUBLASLT_EPILOGUE_BIAS;
    this.#setI32(plan.desc, c.CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
    // The address is a part of what an algorithm is chosen by: its alignment counts.
    if (bias !== 0) this.#setAddress(plan.desc, c.CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    if (this.#findAlgorithm(plan, alignments)) return plan;
    this.#destroy(plan);
    return null;
  }

  #findAlgorithm({ desc, w, x, out, result }: Plan, [alignW, alignX, alignOut]: readonly number[]): boolean {
    const f = this.#functions;
    const c = CUBLASLT_CONSTANTS;
    const create = f.cublasLtMatmulPreferenceCreate(ptr(this.#word));
    const preference = this.#created('cublasLtMatmulPreferenceCreate', create);
    const set = (attribute: number, value: Uint32Array | BigUint64Array) =>
      this.#check(
        'cublasLtMatmulPreferenceSetAttribute',
        f.cublasLtMatmulPreferenceSetAttribute(preference, attribute, ptr(value), value.byteLength),
      );
    try {
      set(c.CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, new BigUint64Array([BigInt(this.#workspace.bytes)]));
      const alignments = [
        [c.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignW],
        [c.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignX],
        [c.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignOut],
        [c.CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignOut],
      ] as const;
      for (const [attribute, bytes] of alignments) set(attribute, new Uint32Array([bytes!]));
      const count = new Int32Array(1);
      const status = f.cublasLtMatmulAlgoGetHeuristic(
        ...[this.#handle, desc, w, x, out, out, preference, 1, ptr(result), ptr(count)],
      );
      if (status === NOT_SUPPORTED) return false;
      this.#check('cublasLtMatmulAlgoGetHeuristic', status);
      return count[0]! > 0 && new DataView(result.buffer).getInt32(HEURISTIC_RESULT.state, true) === 0;
    } finally {
      f.cublasLtMatmulPreferenceDestroy(preference);
    }
  }

  #destroy({ desc, w, x, out }: Plan): void {
    this.#functions.cublasLtMatmulDescDestroy(desc);
    for (const layout of [w, x, out]) this.#functions.cublasLtMatrixLayoutDestroy(layout);
  }

  #setI32(desc: number, attribute: number, value: number): void {
    const status = this.#functions.cublasLtMatmulDescSetAttribute(desc, attribute, ptr(new Int32Array([value])), 4);
    this.#check('cublasLtMatmulDescSetAttribute', status);
  }

  #setAddress(desc: number, attribute: number, address: DevicePtr): void {
    this.#word[0] = BigInt(address);
    const status = this.#functions.cublasLtMatmulDescSetAttribute(desc, attribute, ptr(this.#word), 8);
    this.#check('cublasLtMatmulDescSetAttribute', status);
  }

  #created(call: string, status: number): number {
    this.#check(call, status);
    return Number(this.#word[0]);
  }

  #check(call: string, status: number): void {
    if (status === 0) return;
    throw new Error(`${call}: ${new CString(this.#functions.cublasLtGetStatusName(status) as Pointer)} (${status})`);
  }
}
