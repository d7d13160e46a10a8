import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder } from '../../../src/package-layout.ts';

/** Of each pip call; it is not the machine's speed that is tested. */
const INSTALL_TIMEOUT_MS = 120_000;

/** A Python with packages, or why there is none. */
export type PythonEnvironment = { python: string } | { missing: string };

/** A virtual environment with these packages ("openai==1.2.3"), made once where pip reaches them and kept in the cache folder. */
export async function pythonWith(...packages: string[]): Promise<PythonEnvironment> {
  const folder = join(cacheFolder(), 'python', packages.join('+'));
  const python = join(folder, 'bin/python');
  const mark = join(folder, 'complete');
  if (existsSync(mark)) return { python };
  if (Bun.which('python3') === null) return { missing: 'there is no python3' };
  rmSync(folder, { recursive: true, force: true });
  const made =
    (await run('python3', '-m', 'venv', folder)) ??
    (await run(python, '-m', 'pip', 'install', '--quiet', '--retries', '0', '--timeout', '15', ...packages));
  if (made !== null) return { missing: made };
  await Bun.write(mark, '');
  return { python };
}

/** null, or what went wrong. */
async function run(...command: string[]): Promise<string | null> {
  const child = Bun.spawn(command, { stdin: 'ignore', stdout: 'ignore', stderr: 'pipe', timeout: INSTALL_TIMEOUT_MS });
  const stderr = await new Response(child.stderr).text();
  return (await child.exited) === 0 ? null : `${command.slice(0, 4).join(' ')} failed: ${stderr.trim().slice(-300)}`;
}
