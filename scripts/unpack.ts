/** Part of the executable that scripts/build-executable.ts makes. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * Writes the files into a folder that is named after their contents, unless it is there; gives the folder. Processes and threads may do so at
 * the same time: the folder appears whole.
 *
 * @param files name in the folder, and path inside the executable
 */
export function unpack(folder: string, files: readonly [name: string, path: string][]): string {
  if (existsSync(folder)) return folder;
  const scratch = `${folder}.${process.pid}-${crypto.randomUUID()}`;
  for (const [name, path] of files) {
    mkdirSync(dirname(join(scratch, name)), { recursive: true });
    writeFileSync(join(scratch, name), readFileSync(path));
  }
  try {
    renameSync(scratch, folder);
  } catch (error) {
    rmSync(scratch, { recursive: true, force: true });
    // Another one was faster.
    if (!existsSync(folder)) throw error;
  }
  return folder;
}
