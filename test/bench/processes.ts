import { readdirSync, readFileSync } from 'node:fs';

/** What Linux says of a process. */
export interface ProcessState {
  parent: number;
  stopped: boolean;
  /** Words of its command line. */
  command: string[];
}

/** null for one that has ended, though its parent may not have asked for it yet. */
export function processState(pid: number): ProcessState | null {
  try {
    const [, state, parent] = /^\d+ \(.*\) (\w) (\d+)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))!;
    if (state === 'Z') return null;
    const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return { parent: Number(parent), stopped: state === 'T', command };
  } catch {
    return null;
  }
}

/** Numbers of the processes that this one has started. */
export function childrenOf(parent: number): number[] {
  const pids = readdirSync('/proc').map(Number).filter(Number.isInteger);
  return pids.filter((pid) => processState(pid)?.parent === parent);
}
