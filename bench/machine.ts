import { cpus, loadavg, release } from 'node:os';
import { availableThreads, systemMemory } from '../src/device/cpu-resources.ts';

/** Where a result was measured. */
export interface Machine {
  cpu: string;
  /** Compute threads that this process may use at once. */
  threads: number;
  memory_gib: number;
  os: string;
  bun: string;
  /** Threads that wanted to run in the last minute, the benchmark's own included: much more than `threads` means that others took part of the machine. */
  load_average: number;
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? process.arch,
    threads: availableThreads(),
    memory_gib: Math.round(systemMemory().totalBytes / 2 ** 30),
    os: `${process.platform} ${release()} ${process.arch}`,
    bun: Bun.version,
    load_average: loadavg()[0]!,
  };
}
