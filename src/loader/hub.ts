import { existsSync, readFileSync } from 'node:fs';
import { mkdir, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { logger } from '../logging/logger.ts';
import { CachedRepo, type Environment, hubCacheFolder, hubHome } from './hub-cache.ts';
import { HubClient, HubUnreachableError, type RepoFile, type RepoListing } from './hub-client.ts';
import { downloadFile } from './hub-download.ts';
import { formatBytes, showProgress } from './hub-progress.ts';
import { LoadError } from './load-error.ts';

const log = logger('hub');

const MAX_PARALLEL_DOWNLOADS = 4;

export interface HubOptions {
  /** Branch, tag or commit. Default main. */
  revision?: string | null;
  /** Root of the cache (`--download-dir`), in place of the one the environment names. */
  downloadDir?: string | null;
  /** `--hf-token`, in place of HF_TOKEN. */
  hfToken?: string | null;
  /** False: configuration and tokenizer only. */
  weights?: boolean;
  /** Default process.env. Read: HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME, HF_HUB_CACHE. */
  env?: Environment;
  /** Pause before the second try of a broken download; doubled for each further one. */
  retryDelayMs?: number;
}

/**
 * Downloads what a server needs of a Hub model into the Hugging Face cache, or finds it there, and returns the snapshot's folder.
 * The Hub is asked which commit the revision is at; when it can't be reached, the cached snapshot is used with a warning.
 *
 * @throws LoadError in one sentence
 */
export async function downloadModel(id: string, options: HubOptions = {}): Promise<string> {
  const env = options.env ?? process.env;
  const revision = checkRevision(options.revision || 'main');
  const cacheFolder = options.downloadDir || hubCacheFolder(env);
  const repo = new CachedRepo(cacheFolder, id);
  const cached = repo.findSnapshot(revision);
  if (isOffline(env)) {
    if (cached !== null) return cached;
    throw new LoadError(
      `HF_HUB_OFFLINE is set, and revision "${revision}" of model "${id}" is not in the cache ${cacheFolder}.`,
    );
  }
  const endpoint = (env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, '');
  const client = new HubClient(endpoint, id, revision, findToken(options.hfToken, env));
  let listing: RepoListing;
  try {
    listing = await client.list();
  } catch (error) {
    if (!(error instanceof HubUnreachableError)) throw error;
    if (cached === null) {
      throw new LoadError(`${error.message} Model "${id}" is not in the cache ${cacheFolder} either.`, {
        cause: error,
      });
    }
    log.warn(`${error.message} Using the cached snapshot of ${id}.`, { folder: cached });
    return cached;
  }
  const files = selectFiles(id, listing.files, options.weights ?? true);
  await fetchMissing(client, repo, listing.commit, files, options.retryDelayMs ?? 1000);
  for (const file of files) await repo.link(listing.commit, file.name, file.etag);
  await repo.writeRef(revision, listing.commit);
  return repo.snapshotFolder(listing.commit);
}

/** The files of a repository's root that a server reads: configuration, tokenizer, chat template, safetensors. */
function selectFiles(id: string, files: RepoFile[], weights: boolean): RepoFile[] {
  const isText = (name: string) => /\.(?:json|jinja)$|^(?:merges|vocab)\.txt$|^tokenizer\.model$/.test(name);
  const texts = files.filter((file) => isText(file.name));
  if (!weights) return texts;
  const tensors = files.filter((file) => file.name.endsWith('.safetensors'));
  const isOfModule = (file: RepoFile) => file.name.includes('/');
  const ofModel = tensors.filter((file) => !isOfModule(file));
  if (ofModel.length === 0) {
    const others = files.filter((file) => /\.(?:bin|gguf|pth|pt)$/.test(file.name)).map((file) => file.name);
    const found = others.length > 0 ? `; it has ${others.slice(0, 4).join(', ')}` : '';
    throw new LoadError(`Model "${id}" has no *.safetensors weights${found}.`);
  }
  // Some repositories hold the weights a second time under another name (consolidated.safetensors).
  const named = ofModel.filter((file) => file.name.startsWith('model'));
  return [...texts, ...(named.length > 0 ? named : ofModel), ...tensors.filter(isOfModule)];
}

async function fetchMissing(
  client: HubClient,
  repo: CachedRepo,
  commit: string,
  files: RepoFile[],
  retryDelayMs: number,
): Promise<void> {
  const missing = [...new Map(files.map((file) => [file.etag, file])).values()].filter(
    (file) => !repo.hasBlob(file.etag, file.size),
  );
  if (missing.length === 0) return;
  const totalBytes = missing.reduce((total, file) => total + file.size, 0);
  await checkFreeSpace(repo.folder, totalBytes);
  const progress = await showProgress(repo.id, missing.length, totalBytes);
  const queue = missing.sort((a, b) => a.size - b.size);
  let failed = false;
  const work = async () => {
    for (let file = queue.shift(); file !== undefined && !failed; file = queue.shift()) {
      await downloadFile(client, commit, file, repo.blobPath(file.etag), {
        maxAttempts: 5,
        retryDelayMs,
        onBytes: (bytes) => progress.advance(bytes),
      });
    }
  };
  try {
    await Promise.all(
      Array.from({ length: Math.min(MAX_PARALLEL_DOWNLOADS, missing.length) }, () =>
        work().catch((error) => {
          failed = true;
          throw error;
        }),
      ),
    );
  } finally {
    progress.stop();
  }
}

async function checkFreeSpace(folder: string, bytes: number): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw new LoadError(
      `${folder}: can't be created (${(error as NodeJS.ErrnoException).code}); choose another cache with --download-dir.`,
      {
        cause: error,
      },
    );
  }
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize < bytes) {
    throw new LoadError(
      `${folder}: ${formatBytes(bytes)} are to be downloaded, but only ${formatBytes(bavail * bsize)} are free; choose another disk with --download-dir.`,
    );
  }
}

function findToken(given: string | null | undefined, env: Environment): string | null {
  const token = given || env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN;
  if (token) return token.trim();
  const path = env.HF_TOKEN_PATH || join(hubHome(env), 'token');
  return existsSync(path) ? readFileSync(path, 'utf8').trim() || null : null;
}

function isOffline(env: Environment): boolean {
  return [env.HF_HUB_OFFLINE, env.TRANSFORMERS_OFFLINE].some((value) => /^(?:1|on|yes|true)$/i.test(value ?? ''));
}

/** A revision becomes part of a path (`refs/…`). */
function checkRevision(revision: string): string {
  if (/^[\w.-]+(?:\/[\w.-]+)*$/.test(revision) && !revision.split('/').includes('..')) return revision;
  throw new LoadError(`--revision "${revision}" is not a branch, tag or commit.`);
}
