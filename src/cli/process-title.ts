import { closeSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';

/** Of /proc/self/stat behind the command's name: fields 48 and 49 of proc(5). */
const ARG_START = 45;
const ARG_END = 46;

/**
 * What `ps` and `top` show of this process. Bun keeps `process.title` to itself, so on Linux the memory that the command line lies in is written over,
 * as setproctitle does; a title that is longer than the command line was is cut. Elsewhere, and where /proc can't be written, only `process.title` changes.
 */
export function setProcessTitle(title: string): void {
  process.title = title;
  if (process.platform !== 'linux') return;
  try {
    writeFileSync('/proc/self/comm', title);
    const stat = readFileSync('/proc/self/stat', 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    writeCommandLine(Number(fields[ARG_START]), Number(fields[ARG_END]), title);
  } catch {
    // A container may forbid it; a title is not worth more.
  }
}

/** The last byte stays zero: without one the kernel would go on reading in the environment. */
function writeCommandLine(start: number, end: number, title: string): void {
  const line = Buffer.alloc(end - start);
  line.write(title, 0, line.length - 1);
  const memory = openSync('/proc/self/mem', 'r+');
  try {
    writeSync(memory, line, 0, line.length, start);
  } finally {
    closeSync(memory);
  }
}
