import { readFileSync } from 'node:fs';
import { ensureCpuLibrary } from '../scripts/build-cpu.ts';
import type { BaoConfig } from '../src/config/bao-config.ts';
import { type CpuIsa, describeCpu, ISA_CODES } from '../src/device/cpu-library.ts';
import { CpuProbe } from '../src/device/cpu-probe.ts';
import { availableThreads, systemMemory } from '../src/device/cpu-resources.ts';
import type { FloatDType } from '../src/device/dtype.ts';
import type { LimitMeter, Limits } from './limit-meter.ts';

const MIB = 2 ** 20;
/** The buffer is so many times the last cache, so that next to nothing of a pass is left there for the next one. */
const CACHE_MULTIPLE = 16;
const READ_ROUNDS = 5;
const MULTIPLY_ROUNDS = 3;
const MULTIPLY_SECONDS = 0.05;

/** What decides about limits: device and threads of the engine, and the type that it multiplies in. */
export interface LimitSubject {
  device: BaoConfig['device']['device'];
  cpuThreads: number | null;
  dtype: FloatDType;
}

/** The limits of the processor with the engine's number of threads, or those of the GPU. */
export async function openLimitMeter(subject: LimitSubject): Promise<LimitMeter> {
  if (subject.device === 'cpu') return CpuLimitMeter.open(subject.cpuThreads);
  const { CudaLimitMeter } = await import('./cuda-limits.ts');
  return CudaLimitMeter.open(subject.device, subject.dtype);
}

/** The processor's. */
export class CpuLimitMeter implements LimitMeter {
  private constructor(
    private readonly probe: CpuProbe,
    private readonly threads: number,
    private readonly isa: CpuIsa,
  ) {}

  /** @param threads by default those that the engine takes by default */
  static async open(threads: number | null = null): Promise<CpuLimitMeter> {
    const probe = new CpuProbe(await ensureCpuLibrary({ quiet: true }), bufferBytes());
    return new CpuLimitMeter(probe, threads ?? availableThreads(), probe.isa);
  }

  get device(): string {
    return describeCpu(this.threads, this.isa);
  }

  measure(): Limits {
    const reads = Array.from({ length: READ_ROUNDS }, () => this.probe.readBandwidth(this.threads, 1));
    const limits = { read_gbps: Math.max(...reads) / 1e9, gflops: this.peak(this.isa) };
    const hasDots = ISA_CODES[this.probe.highestIsa] >= ISA_CODES.avx512_bf16;
    return hasDots && this.isa !== 'avx512_bf16' ? { ...limits, bf16_dot_gflops: this.peak('avx512_bf16') } : limits;
  }

  private peak(isa: CpuIsa): number {
    const peaks = Array.from({ length: MULTIPLY_ROUNDS }, () =>
      this.probe.multiplyPeak(isa, this.threads, MULTIPLY_SECONDS),
    );
    return Math.max(...peaks) / 1e9;
  }

  close(): void {
    this.probe.close();
  }
}

/** Limits of two moments: the higher ones. */
export function higherLimits(a: Limits, b: Limits): Limits {
  const limits = { read_gbps: Math.max(a.read_gbps, b.read_gbps), gflops: Math.max(a.gflops, b.gflops) };
  const dots = [a.bf16_dot_gflops, b.bf16_dot_gflops].filter((rate) => rate !== undefined);
  return dots.length === 0 ? limits : { ...limits, bf16_dot_gflops: Math.max(...dots) };
}

/** Limits around an action, measured right before and right after it, and the device that they are of. */
export async function withLimits<Value>(
  config: BaoConfig,
  action: () => Promise<Value>,
): Promise<{ value: Value; limits: Limits; device: string }> {
  const { device, model } = config;
  const meter = await openLimitMeter({ ...device, dtype: model.dtype });
  try {
    return { ...(await limitsAround(meter, action)), device: meter.device };
  } finally {
    meter.close();
  }
}

/** The same with a meter that is open. */
export async function limitsAround<Value>(
  meter: LimitMeter,
  action: () => Promise<Value>,
): Promise<{ value: Value; limits: Limits }> {
  const before = meter.measure();
  const value = await action();
  return { value, limits: higherLimits(before, meter.measure()) };
}

function bufferBytes(): number {
  const wanted = Math.min(Math.max(CACHE_MULTIPLE * lastCacheBytes(), 256 * MIB), 1024 * MIB);
  return Math.min(wanted, Math.floor(systemMemory().freeBytes / 4 / MIB) * MIB);
}

function lastCacheBytes(): number {
  try {
    const text = readFileSync('/sys/devices/system/cpu/cpu0/cache/index3/size', 'utf8');
    return Number.parseInt(text, 10) * 1024;
  } catch {
    return 32 * MIB;
  }
}
