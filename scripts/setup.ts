/**
 * Makes a checkout ready to run: dependencies, the native CPU library, the grammar engine. Does nothing, fast, when all are there.
 * It runs before anything is installed, so it imports nothing but what Bun brings.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dir, '..');
/** Hash of the bun.lock that node_modules was installed from. Times would not do: a checkout makes every file new. */
const STAMP = join(ROOT, 'node_modules', '.bao-lock');

function installDependencies(): void {
  const lock = Bun.hash(readFileSync(join(ROOT, 'bun.lock'))).toString(16);
  if (existsSync(STAMP) && readFileSync(STAMP, 'utf8') === lock) return;
  console.error('Installing dependencies …');
  // The running binary, not the PATH's: under npx there may be no other.
  const { exitCode } = Bun.spawnSync([process.execPath, 'install', '--frozen-lockfile'], {
    cwd: ROOT,
    stdio: ['ignore', process.stderr.fd, process.stderr.fd],
  });
  if (exitCode !== 0)
    throw new Error(`The dependencies could not be installed: bun install ended with code ${exitCode}.`);
  writeFileSync(STAMP, lock);
}

try {
  installDependencies();
  const { ensureCpuLibrary } = await import('./build-cpu.ts');
  await ensureCpuLibrary();
  const { ensureGuidanceLibrary } = await import('./build-llguidance.ts');
  ensureGuidanceLibrary();
} catch (error) {
  console.error(`setup: ${error instanceof Error ? error.message : error}`);
  process.exit(1);
}
