import type { CudaDevice } from '../src/device/cuda/cuda-device.ts';
import { CudaProbe, type CudaProbeSizes } from '../src/device/cuda/cuda-probe.ts';
import { openCuda, openCudaEmulation } from '../src/device/cuda/open-cuda.ts';
import type { FloatDType } from '../src/device/dtype.ts';
import type { LimitMeter, Limits } from './limit-meter.ts';

/** Twenty times the last cache of a Hopper; matrices on which cuBLAS is as fast as it gets. */
const REAL_SIZES: CudaProbeSizes = { readBytes: 2 ** 30, matrixSize: 8192 };
/** An emulation has no speed: its figures only show that the measurement runs. */
const EMULATED_SIZES: CudaProbeSizes = { readBytes: 2 ** 16, matrixSize: 64 };
const ROUNDS = 3;
const PASSES = 20;
const PRODUCTS = 10;

/** A GPU's limits, measured through a device of its own beside the engine's. */
export class CudaLimitMeter implements LimitMeter {
  private constructor(
    private readonly cuda: CudaDevice,
    private readonly probe: CudaProbe,
  ) {}

  static async open(type: 'cuda' | 'cuda-emulation', dtype: FloatDType): Promise<CudaLimitMeter> {
    const open = type === 'cuda' ? openCuda : openCudaEmulation;
    const device = await open({ index: 0, activationDtype: dtype, replaySizes: [] });
    return new CudaLimitMeter(device, new CudaProbe(device, type === 'cuda' ? REAL_SIZES : EMULATED_SIZES));
  }

  get device(): string {
    return this.cuda.description;
  }

  measure(): Limits {
    const rounds = Array.from({ length: ROUNDS }, () => ({
      read: this.probe.readBandwidth(PASSES),
      multiply: this.probe.multiplyPeak(PRODUCTS),
    }));
    return {
      read_gbps: Math.max(...rounds.map(({ read }) => read)) / 1e9,
      gflops: Math.max(...rounds.map(({ multiply }) => multiply)) / 1e9,
    };
  }

  close(): void {
    this.probe.close();
    this.cuda.close();
  }
}
