import { DTYPE_CODES, dtypeBytes } from '../dtype.ts';
import type { CudaDevice } from './cuda-device.ts';

export interface CudaProbeSizes {
  /** Bytes to read, a multiple of 16 and much more than the last cache holds. */
  readBytes: number;
  /** Rows and columns of the square matrices to multiply. */
  matrixSize: number;
}

/** Measures what a CUDA device can do at most: how fast its memory is read, and how fast cuBLAS multiplies matrices of the activation type. */
export class CudaProbe {
  private readonly buffer: number;
  private readonly sum: number;

  /** Memory is taken from the device until `close`. */
  constructor(
    private readonly device: CudaDevice,
    private readonly sizes: CudaProbeSizes,
  ) {
    const matrices = 3 * sizes.matrixSize ** 2 * dtypeBytes(device.activationDtype);
    const bytes = Math.max(sizes.readBytes, matrices);
    this.buffer = device.alloc(bytes, 'probe');
    this.sum = device.alloc(4, 'probe');
    device.fillNoise(this.buffer, bytes);
    device.wait(device.record());
  }

  /** Bytes a second, over `passes` passes of the buffer. */
  readBandwidth(passes: number): number {
    const { readBytes } = this.sizes;
    return (readBytes * passes) / this.seconds(passes, () => this.device.probeRead(this.buffer, readBytes, this.sum));
  }

  /** Operations a second (a multiply-add is two), over `times` products. */
  multiplyPeak(times: number): number {
    const { matrixSize: n } = this.sizes;
    const dtype = this.device.activationDtype;
    const bytes = n * n * dtypeBytes(dtype);
    const [x, w, out] = [this.buffer, this.buffer + bytes, this.buffer + 2 * bytes];
    const multiply = () => this.device.ops.linear(x, n, w, DTYPE_CODES[dtype], 0, out, n, n, n, n);
    return (2 * n ** 3 * times) / this.seconds(times, multiply);
  }

  close(): void {
    this.device.free(this.buffer);
    this.device.free(this.sum);
  }

  /** Enqueueing is hidden behind the device's work, but for the first time. */
  private seconds(times: number, enqueue: () => void): number {
    enqueue();
    this.device.wait(this.device.record());
    const started = performance.now();
    for (let i = 0; i < times; i++) enqueue();
    this.device.wait(this.device.record());
    return (performance.now() - started) / 1000;
  }
}
