import { existsSync, readFileSync, statSync } from 'node:fs';
import { mkdir, readlink, rename, symlink, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { dirname, join, relative } from 'node:path';

export type Environment = Readonly<Record<string, string | undefined>>;

const COMMIT = /^[0-9a-f]{40}$/;

/** Root of the Hub cache, by the variables that huggingface_hub reads. */
export function hubCacheFolder(env: Environment): string {
  return env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(hubHome(env), 'hub');
}

/** HF_HOME or its default. */
export function hubHome(env: Environment): string {
  return env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'huggingface');
}

/**
 * One model in the cache layout that all Hugging Face libraries share:
 * `blobs/` holds contents by hash, `refs/REVISION` the commit of a branch or tag, `snapshots/COMMIT/` links to the blobs by file name.
 */
export class CachedRepo {
  readonly folder: string;

  constructor(
    cacheFolder: string,
    readonly id: string,
  ) {
    this.folder = join(cacheFolder, `models--${id.replaceAll('/', '--')}`);
  }

  blobPath(etag: string): string {
    return join(this.folder, 'blobs', etag);
  }

  snapshotFolder(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  /** The snapshot of a branch, tag or commit, as far as the cache knows; null when it does not. */
  findSnapshot(revision: string): string | null {
    const refPath = join(this.folder, 'refs', revision);
    const commit = COMMIT.test(revision) ? revision : existsSync(refPath) ? readFileSync(refPath, 'utf8').trim() : '';
    if (!COMMIT.test(commit)) return null;
    const folder = this.snapshotFolder(commit);
    return existsSync(join(folder, 'config.json')) || existsSync(join(folder, 'tokenizer.json')) ? folder : null;
  }

  hasBlob(etag: string, size: number): boolean {
    return statSync(this.blobPath(etag), { throwIfNoEntry: false })?.size === size;
  }

  /** Makes `snapshots/COMMIT/name` a relative link to the blob, so that the cache may be moved. */
  async link(commit: string, name: string, etag: string): Promise<void> {
    const path = join(this.snapshotFolder(commit), name);
    const target = relative(dirname(path), this.blobPath(etag));
    if ((await readlink(path).catch(() => null)) === target) return;
    await mkdir(dirname(path), { recursive: true });
    const fresh = `${path}.${process.pid}.tmp`;
    await symlink(target, fresh);
    await rename(fresh, path);
  }

  /** Remembers a revision's commit. Done last: whoever finds the reference finds a whole snapshot. */
  async writeRef(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const path = join(this.folder, 'refs', revision);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(`${path}.${process.pid}.tmp`, commit);
    await rename(`${path}.${process.pid}.tmp`, path);
  }
}
