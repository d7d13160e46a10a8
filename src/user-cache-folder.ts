import { homedir } from 'node:os';
import { join } from 'node:path';

/** `bao` under the user's folder for caches. */
export function userCacheFolder(environment: Readonly<Record<string, string | undefined>> = process.env): string {
  return join(environment.XDG_CACHE_HOME || join(homedir(), '.cache'), 'bao');
}
