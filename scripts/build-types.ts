/** Writes the types of the programming interface (src/index.ts) to `types/`, for the package: a user's compiler settings do not fit our sources. */
import { rmSync } from 'node:fs';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dir, '..');
const TYPES = join(ROOT, 'types');

rmSync(TYPES, { recursive: true, force: true });
const { exitCode } = Bun.spawnSync(
  [
    process.execPath,
    join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc'),
    ...['--project', join(ROOT, 'tsconfig.types.json'), '--outDir', TYPES],
  ],
  { stdio: ['ignore', 'inherit', 'inherit'] },
);
process.exit(exitCode);
