import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../config/config-error.ts';
import { PACKAGE_ROOT } from '../package-layout.ts';

/** `bao bench …`, which is `bun bench …` of the checkout or package; ends the process with its exit code. Throws ConfigError where it is not there. */
export async function bench(argv: readonly string[]): Promise<void> {
  const main = join(PACKAGE_ROOT, 'bench', 'main.ts');
  if (!existsSync(main))
    throw new ConfigError('This executable has no benchmarks; a checkout and the npm package have.');
  const child = Bun.spawn([process.execPath, main, ...argv], { stdio: ['inherit', 'inherit', 'inherit'] });
  process.exit(await child.exited);
}
