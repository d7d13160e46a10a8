/** Running a C++ compiler (or nvcc): finding it, compiling many files at once, telling how far it is. */
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';

export interface CompileJob {
  source: string;
  object: string;
  flags: string[];
}

/** CXX, or the first compiler in the PATH. Throws an Error of one sentence where there is none. */
export function findCompiler(): string {
  const wanted = process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++'];
  for (const name of wanted) {
    const path = Bun.which(name);
    if (path) return path;
  }
  throw new Error(
    `no C++ compiler: ${wanted.join(', ')} not found. Install one (Debian and Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install) or name it in CXX.`,
  );
}

/** Paths of the folder's files whose names match, sorted. */
export function filesWith(folder: string, extension: RegExp): string[] {
  return readdirSync(folder)
    .filter((name) => extension.test(name))
    .sort()
    .map((name) => join(folder, name));
}

/** Compiles on all cores; `progress` hears how many files are done before each one starts. Gives what the compiler printed; throws with it where it fails. */
export async function compileAll(
  compiler: string,
  jobs: readonly CompileJob[],
  progress: (done: number) => void,
): Promise<string> {
  const waiting = [...jobs];
  const printed: string[] = [];
  let finished = 0;
  const worker = async () => {
    for (let job = waiting.shift(); job; job = waiting.shift()) {
      progress(finished);
      printed.push(await run(compiler, [...job.flags, '-c', job.source, '-o', job.object]));
      finished++;
    }
  };
  const workers = await Promise.allSettled(Array.from({ length: availableParallelism() }, worker));
  const failed = workers.find((result) => result.status === 'rejected');
  if (failed) throw failed.reason;
  return printed.join('');
}

/** Gives what the program printed on stderr; throws with it where it does not end with 0. */
export async function run(compiler: string, args: string[]): Promise<string> {
  const child = Bun.spawn([compiler, ...args], { stdout: 'ignore', stderr: 'pipe' });
  const [errors, code] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  if (code !== 0) throw new Error(`${compiler} ${args.join(' ')} failed with exit code ${code}:\n${errors}`);
  return errors;
}

/** One line on stderr that is rewritten on a terminal; elsewhere the first and the last one are printed. */
export function progressLine(quiet: boolean): (text: string, last?: boolean) => void {
  let isFirst = true;
  return (text, last = false) => {
    if (quiet) return;
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}${last ? '\n' : ''}`);
    else if (isFirst || last) process.stderr.write(`${text}\n`);
    isFirst = false;
  };
}
