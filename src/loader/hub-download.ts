import { createWriteStream, statSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { type HubClient, HubUnreachableError, type RepoFile } from './hub-client.ts';
import { LoadError } from './load-error.ts';

/** A connection that brings nothing for so long is taken for dead. */
const IDLE_TIMEOUT_MS = 30_000;

export interface DownloadOptions {
  /** Tries without any progress before giving up. */
  maxAttempts: number;
  /** Pause before the second try; doubled for each further one. */
  retryDelayMs: number;
  /** Bytes that became available, those of an earlier run included; negative when they turned out useless. */
  onBytes(bytes: number): void;
}

/**
 * Downloads a file to `path`, which appears only when size and hash are right. The part that has arrived stays in `path.incomplete`
 * and is continued by the next try or the next run.
 *
 * @throws LoadError
 */
export async function downloadFile(
  client: HubClient,
  commit: string,
  file: RepoFile,
  path: string,
  options: DownloadOptions,
): Promise<void> {
  const incomplete = `${path}.incomplete`;
  await mkdir(dirname(path), { recursive: true });
  options.onBytes(sizeOf(incomplete));
  for (let attempt = 1; ; attempt++) {
    const before = sizeOf(incomplete);
    try {
      await transfer(client, commit, file, incomplete, options.onBytes);
      break;
    } catch (error) {
      if (!(error instanceof HubUnreachableError)) throw error;
      if (sizeOf(incomplete) > before) attempt = 1;
      if (attempt >= options.maxAttempts) throw error;
      await Bun.sleep(options.retryDelayMs * 2 ** (attempt - 1));
    }
  }
  await verify(file, incomplete);
  await rename(incomplete, path);
}

/** Brings `incomplete` to the file's size, as far as one connection goes. */
async function transfer(
  client: HubClient,
  commit: string,
  file: RepoFile,
  incomplete: string,
  onBytes: (bytes: number) => void,
): Promise<void> {
  let offset = sizeOf(incomplete);
  if (offset > file.size) {
    await rm(incomplete);
    onBytes(-offset);
    offset = 0;
  }
  if (offset === file.size && file.size > 0) return;

  const idle = new AbortController();
  let timer = setTimeout(() => idle.abort(), IDLE_TIMEOUT_MS);
  try {
    const response = await client.open(commit, file.name, offset, idle.signal);
    const resumed = response.status === 206 && rangeStart(response) === offset;
    if (!resumed && offset > 0) {
      onBytes(-offset);
      offset = 0;
    }
    if (!resumed && response.status !== 200) {
      await response.body?.cancel();
      await rm(incomplete, { force: true });
      throw new HubUnreachableError(`${file.name}: the Hub answered ${response.status} to a range request.`);
    }
    const sink = createWriteStream(incomplete, { flags: resumed ? 'a' : 'w' });
    try {
      for await (const chunk of response.body ?? []) {
        clearTimeout(timer);
        timer = setTimeout(() => idle.abort(), IDLE_TIMEOUT_MS);
        offset += chunk.byteLength;
        if (offset > file.size)
          throw new LoadError(`${file.name}: the Hub sent more than the ${file.size} bytes it announced.`);
        await write(sink, chunk);
        onBytes(chunk.byteLength);
      }
    } finally {
      await close(sink);
    }
  } catch (error) {
    if (error instanceof LoadError) throw error;
    if (isDiskError(error)) throw new LoadError(`${incomplete}: can't be written (${error.code}).`, { cause: error });
    throw new HubUnreachableError(`${file.name}: the connection broke off after ${offset} of ${file.size} bytes.`, {
      cause: error,
    });
  } finally {
    clearTimeout(timer);
  }
  if (offset < file.size) {
    throw new HubUnreachableError(`${file.name}: the connection ended after ${offset} of ${file.size} bytes.`);
  }
}

/** An LFS file is named by the SHA-256 of its content, any other by git's blob id: SHA-1 over "blob SIZE\0" and the content. */
async function verify(file: RepoFile, incomplete: string): Promise<void> {
  const isLfs = file.etag.length === 64;
  const hasher = new Bun.CryptoHasher(isLfs ? 'sha256' : 'sha1');
  if (!isLfs) hasher.update(`blob ${file.size}\0`);
  for await (const chunk of Bun.file(incomplete).stream()) hasher.update(chunk);
  const found = hasher.digest('hex');
  if (found === file.etag) return;
  await rm(incomplete, { force: true });
  throw new LoadError(`${file.name}: the download is damaged: its hash is ${found}, expected ${file.etag}; try again.`);
}

function rangeStart(response: Response): number | null {
  const match = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '');
  return match === null ? null : Number(match[1]);
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function write(sink: NodeJS.WritableStream, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    sink.write(chunk, (error) => (error ? reject(error) : resolve()));
  });
}

function close(sink: NodeJS.WritableStream): Promise<void> {
  return new Promise((resolve, reject) => {
    sink.once('error', reject);
    sink.end(resolve);
  });
}

function isDiskError(error: unknown): error is NodeJS.ErrnoException {
  return ['ENOSPC', 'EACCES', 'EROFS', 'EDQUOT', 'EIO'].includes((error as NodeJS.ErrnoException)?.code ?? '');
}
