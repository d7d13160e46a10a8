import type { DevicePtr } from '../device.ts';
import { DTYPE_CODES, dtypeBytes, type FloatDType } from '../dtype.ts';
import { refuse } from '../kernel-calls.ts';
import type { Cublas } from './cublas.ts';
import type { CublasLt } from './cublas-lt.ts';
import type { CudaKernels } from './cuda-kernels.ts';

export interface MatrixProductsOptions {
  kernels: CudaKernels;
  /** The kernels' handle of the stream. */
  handle: number;
  cublas: Cublas;
  cublasLt: CublasLt;
  activationDtype: FloatDType;
  alloc(bytes: number, purpose: string): DevicePtr;
  free(ptr: DevicePtr): void;
  /** Memory for the op that is enqueued next. */
  workspace(bytes: number): DevicePtr;
  errorText(code: number): string | undefined;
}

/** Arguments of the ops linear and linear_f32. */
export interface Product {
  x: readonly [ptr: DevicePtr, ld: number];
  w: DevicePtr;
  /** Code of the weight's type: the activations', or float32 where the result is. */
  wDtype: number;
  bias: DevicePtr;
  out: readonly [ptr: DevicePtr, ld: number];
  outDtype: FloatDType;
  shape: readonly [m: number, n: number, k: number];
}

/**
 * The ops `linear` and `linear_f32`: few rows by a kernel that reads the weight at the memory's rate, rows with a bias by cublasLt, which adds it before
 * the result is rounded, and the rest by cuBLAS.
 */
export class MatrixProducts {
  /** Vectors that `Device.uploadVector` gave, by address: their length, and a copy of the activation type once a product needs it. */
  private readonly vectors = new Map<DevicePtr, { count: number; act: DevicePtr }>();

  constructor(private readonly options: MatrixProductsOptions) {}

  addVector(ptr: DevicePtr, count: number): void {
    this.vectors.set(ptr, { count, act: 0 });
  }

  /** To be called when a vector is freed; other addresses are ignored. True where it had a copy, whose address graphs may have. */
  forgetVector(ptr: DevicePtr): boolean {
    const act = this.vectors.get(ptr)?.act ?? 0;
    if (act !== 0) this.options.free(act);
    this.vectors.delete(ptr);
    return act !== 0;
  }

  /** Enqueues it. Returns 0 or the code of an op's error. */
  linear(product: Product): number {
    const { activationDtype, cublas, kernels, handle } = this.options;
    const { x, w, wDtype, bias, out, outDtype, shape } = product;
    const [m, n, k] = shape;
    const isFloat32 = wDtype === DTYPE_CODES.float32 && activationDtype !== 'float32';
    if (isFloat32 ? outDtype !== 'float32' : wDtype !== DTYPE_CODES[activationDtype]) return 2;
    if (m < 0 || n <= 0 || k <= 0 || x[1] < k || out[1] < n) return 1;
    if (m === 0) return 0;
    if (!x[0] || !w || !out[0]) return 3;
    const outCode = DTYPE_CODES[outDtype];
    if (kernels.bao_is_small_linear(x[0], x[1], w, m, k) === 1)
      return kernels.bao_small_linear(handle, x[0], x[1], w, wDtype, bias, out[0], out[1], outCode, m, n, k);
    if (bias !== 0 && !isFloat32 && this.biasedLinear(product)) return 0;
    if (isFloat32) cublas.linear('float32', outDtype, shape, [this.asFloat32(x, m, k), k], w, out);
    else cublas.linear(activationDtype, outDtype, shape, x, w, out);
    return bias === 0 ? 0 : kernels.bao_add_bias(handle, out[0], bias, out[1], m, n, outCode);
  }

  /** Takes the memory that `linear` would. */
  reserve({ wDtype, bias, outDtype, shape: [m, n, k] }: Omit<Product, 'x' | 'w' | 'out'>): void {
    const { activationDtype } = this.options;
    if (wDtype === DTYPE_CODES.float32 && activationDtype !== 'float32') this.float32Workspace(m, k);
    else if (bias !== 0 && outDtype !== 'float32') this.actVector(bias, n);
  }

  close(): void {
    this.options.cublas.close();
    this.options.cublasLt.close();
  }

  /** False where cublasLt can't: its biases are of the result's type. */
  private biasedLinear({ x, w, bias, out, outDtype, shape }: Product): boolean {
    const { activationDtype: dtype, cublasLt } = this.options;
    const typedBias = outDtype === 'float32' ? bias : this.actVector(bias, shape[1]);
    return typedBias !== 0 && cublasLt.product({ dtype, outDtype, shape, x, w, out, bias: typedBias });
  }

  /** A copy of a vector in the activation type, that lives as long as the vector; 0 where the address is no vector's. */
  private actVector(ptr: DevicePtr, count: number): DevicePtr {
    const { activationDtype, alloc } = this.options;
    const vector = this.vectors.get(ptr);
    if (vector === undefined || vector.count < count) return 0;
    if (vector.act === 0) {
      vector.act = alloc(vector.count * dtypeBytes(activationDtype), 'weights');
      this.convert([ptr, vector.count], 'float32', 1, vector.count, vector.act, activationDtype);
    }
    return vector.act;
  }

  /** Enqueues a float32 copy of act x [m, k], for the op that is enqueued next: cuBLAS takes two matrices of one type. */
  private asFloat32(x: readonly [ptr: DevicePtr, ld: number], m: number, k: number): DevicePtr {
    const to = this.float32Workspace(m, k);
    this.convert(x, this.options.activationDtype, m, k, to, 'float32');
    return to;
  }

  private float32Workspace(m: number, k: number): DevicePtr {
    // Growing stops the device: few sizes.
    return this.options.workspace(2 ** Math.ceil(Math.log2(m * k * 4)));
  }

  private convert(
    [from, ld]: readonly [ptr: DevicePtr, ld: number],
    fromDtype: FloatDType,
    rows: number,
    cols: number,
    to: DevicePtr,
    toDtype: FloatDType,
  ): void {
    const { kernels, handle, errorText } = this.options;
    const types = [DTYPE_CODES[fromDtype], DTYPE_CODES[toDtype]] as const;
    const code = kernels.bao_convert_matrix(handle, from, types[0], rows, cols, ld, to, types[1]);
    if (code !== 0) refuse('convert_matrix', code, { from, rows, cols, ld, to }, errorText(code));
  }
}
