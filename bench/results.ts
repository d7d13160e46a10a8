import { mkdirSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { describeMachine, type Machine } from './machine.ts';

/** What every result file has beside its figures. */
export interface ResultHead {
  /** The subcommand. */
  benchmark: string;
  /** ISO 8601, UTC. */
  date: string;
  /** The command line that made it. */
  command: string;
  machine: Machine;
}

export type Result<Figures> = Figures & ResultHead;

/** A command's figures with where and how they came about. */
export function asResult<Figures extends object>(benchmark: string, figures: Figures): Result<Figures> {
  const words = process.argv.slice(2).map((word) => (/^[\w./:=,@+-]+$/.test(word) ? word : JSON.stringify(word)));
  return {
    benchmark,
    date: new Date().toISOString(),
    command: ['bun bench', ...words].join(' '),
    machine: describeMachine(),
    ...figures,
  };
}

/** Writes the result where a file is wanted, whole or not at all; its folder is made. */
export async function writeResult(path: string | null, benchmark: string, figures: object): Promise<void> {
  if (path === null) return;
  mkdirSync(dirname(path), { recursive: true });
  const unfinished = `${path}.${process.pid}.tmp`;
  await Bun.write(unfinished, `${JSON.stringify(asResult(benchmark, figures), null, 2)}\n`);
  await rename(unfinished, path);
}
