import type { NativeFunction } from '../cpu-library.ts';
import { KernelError, type Ops } from '../device.ts';
import type { FloatDType } from '../dtype.ts';
import { OPS, type OpName } from '../ops.ts';
import type { CudaKernels } from './cuda-kernels.ts';
import type { MatrixProducts } from './matrix-products.ts';

export interface OpTableOptions {
  kernels: CudaKernels;
  products: MatrixProducts;
  activationDtype: FloatDType;
  /** Memory for the op that is enqueued next. */
  reserveWorkspace(bytes: number): void;
}

export interface OpTable {
  /** By op, as the library's functions: the stream first. */
  functions: Record<string, NativeFunction>;
  /** Ops that run nothing: they take the memory that such a call needs beside its arguments. */
  reservations: Ops;
}

type Reservation = (...args: number[]) => void;

/** As many as need the largest workspace: growing it stops the device and makes all graphs stale, so it is done once. */
const MANY_ROWS = 1 << 16;

/** The kernel table's functions: the library's, cuBLAS's, and those that need a workspace first. */
export function opTable(options: OpTableOptions): OpTable {
  const { kernels, products, activationDtype } = options;
  const workspaceOf = workspaces(options);
  const reserving = Object.entries(workspaceOf).map(([op, reserve]) => {
    const call = kernels.ops[op]!;
    const reserved: NativeFunction = (stream, ...args) => {
      reserve(...args);
      return call(stream, ...args);
    };
    return [op, reserved];
  });
  const product =
    (outDtype: FloatDType): NativeFunction =>
    (_stream: number, ...[x, ldX, w, wDtype, bias, out, ldOut, m, n, k]: number[]) =>
      products.linear({
        ...{ x: [x!, ldX!], w: w!, wDtype: wDtype!, bias: bias!, out: [out!, ldOut!] },
        ...{ outDtype, shape: [m!, n!, k!] },
      });
  return {
    functions: {
      ...throwingOps((op) => `${op}: the CUDA device has no such kernel yet`),
      ...kernels.ops,
      ...Object.fromEntries(reserving),
      linear: product(activationDtype),
      linear_f32: product('float32'),
    },
    reservations: { ...nothingOps(), ...workspaceOf, ...productReservations(options) },
  };
}

/** Ops that throw a KernelError whenever they are called. */
export function throwingOps(message: (op: string) => string): Record<OpName, () => never> {
  return fromOps((op) => () => {
    throw new KernelError(op, 0, message(op));
  });
}

function nothingOps(): Ops {
  return fromOps(() => () => {});
}

function fromOps<Function>(make: (op: OpName) => Function): Record<OpName, Function> {
  const names = Object.keys(OPS) as OpName[];
  return Object.fromEntries(names.map((op) => [op, make(op)])) as Record<OpName, Function>;
}

/** Of the kernels that work in the stream's workspace. */
function workspaces({ kernels, reserveWorkspace }: OpTableOptions) {
  const ofRows =
    (bytes: NativeFunction): Reservation =>
    (_logits, _rows, vocabSize) =>
      reserveWorkspace(bytes(MANY_ROWS, vocabSize!));
  // The last arguments of these are rows, n and k, the fourth is the scheme.
  const quantized: Reservation = (...args) => {
    const bytes = kernels.bao_quantized_linear_workspace_bytes(args.at(-3)!, args.at(-1)!, args[3]!);
    reserveWorkspace(bytes > 0 ? 2 ** Math.ceil(Math.log2(bytes)) : 0);
  };
  const addLora: Reservation = (...args) => {
    const [numRows, numSlices, maxRank] = [args[5]!, args[10]!, args[11]!];
    reserveWorkspace(kernels.bao_add_lora_workspace_bytes(numRows, numSlices, maxRank));
  };
  return {
    quantized_linear: quantized,
    quantized_linear_f32: quantized,
    quantized_grouped_linear: quantized,
    sample: ofRows(kernels.bao_sample_workspace_bytes),
    logprobs: ofRows(kernels.bao_logprobs_workspace_bytes),
    add_lora: addLora,
  } satisfies Partial<Record<OpName, Reservation>>;
}

function productReservations({ products, activationDtype }: OpTableOptions) {
  const product =
    (outDtype: FloatDType): Reservation =>
    (_x, _ldX, _w, wDtype, bias, _out, _ldOut, m, n, k) =>
      products.reserve({ wDtype: wDtype!, bias: bias!, outDtype, shape: [m!, n!, k!] });
  return { linear: product(activationDtype), linear_f32: product('float32') };
}
