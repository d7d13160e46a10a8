import { cpus, release } from 'node:os';
import { availableThreads, systemMemory } from '../src/device/cpu-resources.ts';

/** Where a result was measured. */
export interface Machine {
  cpu: string;
  /** Compute threads that this process may use at once. */
  threads: number;
  memory_gib: number;
  os: string;
  bun: string;
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? process.arch,
    threads: availableThreads(),
    memory_gib: Math.round(systemMemory().totalBytes / 2 ** 30),
    os: `${process.platform} ${release()} ${process.arch}`,
    bun: Bun.version,
  };
}
