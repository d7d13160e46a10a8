import { ensureCpuLibrary } from '../../scripts/build-cpu.ts';
import { createCpuDevice } from './cpu-device.ts';
import type { CpuIsa } from './cpu-library.ts';
import { availableThreads, physicalCores } from './cpu-resources.ts';
import type { Device } from './device.ts';
import type { FloatDType } from './dtype.ts';

export interface DeviceOptions {
  /** CPU: threads of all engine cores together; null: as many as can run at once. */
  threads?: number | null;
  /** CPU: bind each thread to a physical core. Default: the system moves them. */
  bindThreads?: boolean;
  /** This engine core among `numCores` that share the machine. */
  coreIndex?: number;
  numCores?: number;
  /** CPU: the kernel library; built where needed when left out. */
  libraryPath?: string;
  /** CPU: highest instruction set to use. */
  isa?: CpuIsa;
  /** CUDA: type of hidden states and weights; default bfloat16. */
  activationDtype?: FloatDType;
  /** CUDA: numbers of sequences that decode steps are filled up to and captured at, ascending; none: no graphs. */
  replaySizes?: readonly number[];
}

/** Threads of one of `numCores` engine cores: an even share, at least one. */
export function shareOfThreads(total: number, coreIndex: number, numCores: number): number {
  return Math.max(1, Math.floor(total / numCores) + (coreIndex < total % numCores ? 1 : 0));
}

async function openCpu(options: DeviceOptions): Promise<Device> {
  const { coreIndex = 0, numCores = 1, bindThreads = false, isa } = options;
  const libraryPath = options.libraryPath ?? (await ensureCpuLibrary({ quiet: true }));
  const total = options.threads ?? availableThreads();
  const shares = Array.from({ length: coreIndex + 1 }, (_, core) => shareOfThreads(total, core, numCores));
  const threads = shares.pop()!;
  const firstThread = shares.reduce((sum, share) => sum + share, 0);
  const cores = bindThreads ? coresToBind(total) : [];
  return createCpuDevice({ libraryPath, threads, isa, processors: cores.slice(firstThread, firstThread + threads) });
}

/**
 * The processors of a physical core for each of `numThreads` threads, those of all engine cores. None where threads are fewer than cores, since
 * other processes may have chosen the same ones then, or more.
 */
export function coresToBind(numThreads: number, cores: number[][] | null = physicalCores()): number[][] {
  return cores?.length === numThreads ? cores : [];
}

// Loaded when asked for: a server on the CPU has no use for it.
async function openCuda(options: DeviceOptions): Promise<Device> {
  return (await import('./cuda/open-cuda.ts')).openCuda(cudaOptions(options));
}

async function openCudaEmulation(options: DeviceOptions): Promise<Device> {
  return (await import('./cuda/open-cuda.ts')).openCudaEmulation(cudaOptions(options));
}

function cudaOptions({ coreIndex = 0, activationDtype = 'bfloat16', replaySizes = [] }: DeviceOptions) {
  return { index: coreIndex, activationDtype, replaySizes };
}

const OPENERS: Record<string, (options: DeviceOptions) => Promise<Device>> = {
  cpu: openCpu,
  auto: openCpu,
  cuda: openCuda,
  'cuda-emulation': openCudaEmulation,
};

/** Opens a device by the name that `--device` has for it. Throws an Error that says what is missing. */
export async function createDevice(type: string, options: DeviceOptions = {}): Promise<Device> {
  const open = OPENERS[type];
  if (!open) throw new Error(`unknown device "${type}"; known are: ${Object.keys(OPENERS).join(', ')}`);
  return open(options);
}
