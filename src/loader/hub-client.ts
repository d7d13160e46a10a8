import { type ListFileEntry, listFiles, modelInfo } from '@huggingface/hub';
import { LoadError } from './load-error.ts';

const MAX_REDIRECTS = 10;
const COMMIT = /^[0-9a-f]{40}$/;
const HASH = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/;

/** The Hub could not be reached, or broke off: worth another try, or the cache. */
export class HubUnreachableError extends LoadError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'HubUnreachableError';
  }
}

export interface RepoFile {
  name: string;
  size: number;
  /** Name of the blob: SHA-256 of an LFS file, else git's blob id. */
  etag: string;
}

export interface RepoListing {
  commit: string;
  files: RepoFile[];
}

/** Folders of the modules of a Sentence Transformers model that say how it pools and what follows. */
const MODULE_FOLDER = /^\d+_(?:Pooling|Dense)$/;
const MODULE_FILES = ['config.json', 'model.safetensors'];

function addFile(files: RepoFile[], entry: ListFileEntry): void {
  const etag = entry.lfs?.oid ?? entry.oid ?? '';
  if (entry.type !== 'file' || !HASH.test(etag)) return;
  files.push({ name: entry.path, size: entry.lfs?.size ?? entry.size, etag });
}

/** The Hub's API for one model. All failures are LoadErrors in one sentence. */
export class HubClient {
  constructor(
    readonly endpoint: string,
    private readonly id: string,
    private readonly revision: string,
    private readonly token: string | null,
  ) {}

  /** The commit of the revision and the files at its root, with those of a Sentence Transformers model's modules (1_Pooling/config.json, 2_Dense/model.safetensors). */
  async list(): Promise<RepoListing> {
    const fetch = ((url: string | URL, init?: RequestInit) =>
      this.request(String(url), init)) as typeof globalThis.fetch;
    const common = { hubUrl: this.endpoint, fetch };
    const { sha } = await modelInfo({ ...common, name: this.id, revision: this.revision, additionalFields: ['sha'] });
    if (!COMMIT.test(sha)) throw new LoadError(`${this.endpoint}: the answer for model "${this.id}" has no commit.`);
    const listed = { ...common, repo: { type: 'model', name: this.id }, revision: sha } as const;
    const files: RepoFile[] = [];
    const folders: string[] = [];
    for await (const entry of listFiles(listed)) {
      if (entry.type === 'directory' && MODULE_FOLDER.test(entry.path)) folders.push(entry.path);
      // A name from the network becomes a path: nothing but plain files of the root.
      if (/^[^/\\.][^/\\]*$/.test(entry.path)) addFile(files, entry);
    }
    for (const folder of folders) {
      for await (const entry of listFiles({ ...listed, path: folder })) {
        if (MODULE_FILES.some((name) => entry.path === `${folder}/${name}`)) addFile(files, entry);
      }
    }
    return { commit: sha, files };
  }

  /** Opens a file's content from byte `offset` on. The answer is 200 (from the start), 206, or 416 (nothing there). */
  async open(commit: string, name: string, offset: number, signal: AbortSignal): Promise<Response> {
    const url = `${this.endpoint}/${this.id}/resolve/${commit}/${name.split('/').map(encodeURIComponent).join('/')}`;
    // Ranges and sizes are of the file itself, not of a compressed form.
    const headers: Record<string, string> = { 'accept-encoding': 'identity' };
    if (offset > 0) headers.range = `bytes=${offset}-`;
    return this.request(url, { headers, signal }, [416]);
  }

  /** Follows redirects by hand: the token goes to the Hub only, never to the storage it points to. */
  private async request(url: string, init: RequestInit = {}, accepted: number[] = []): Promise<Response> {
    let target = url;
    for (let hop = 0; hop <= MAX_REDIRECTS; hop++) {
      const headers = new Headers(init.headers);
      headers.set('user-agent', 'bao');
      const ownOrigin = new URL(target).origin === new URL(this.endpoint).origin;
      if (this.token !== null && ownOrigin) headers.set('authorization', `Bearer ${this.token}`);
      const response = await fetchOrExplain(target, { ...init, headers, redirect: 'manual' });
      const location = response.headers.get('location');
      if (response.status >= 300 && response.status < 400 && location !== null) {
        await response.body?.cancel();
        target = new URL(location, target).href;
        continue;
      }
      if (response.ok || accepted.includes(response.status)) return response;
      await response.body?.cancel();
      throw this.#explain(response);
    }
    throw new LoadError(`${url}: more than ${MAX_REDIRECTS} redirects.`);
  }

  #explain(response: Response): LoadError {
    const code = response.headers.get('x-error-code') ?? '';
    const page = `${this.endpoint}/${this.id}`;
    const advice = this.token === null ? 'set HF_TOKEN or --hf-token' : 'the token given has no access';
    const { status } = response;
    if (status >= 500 || status === 429 || status === 408) {
      return new HubUnreachableError(`${this.endpoint} answered ${status} for model "${this.id}"; try again later.`);
    }
    if (code === 'GatedRepo' || status === 403) {
      return new LoadError(`Access to model "${this.id}" is restricted: accept its terms at ${page} and ${advice}.`);
    }
    if (code === 'RevisionNotFound') {
      return new LoadError(`Model "${this.id}" has no revision "${this.revision}" (${page}).`);
    }
    if (status === 401) {
      return new LoadError(`Model "${this.id}" does not exist or is private (${page}); if it is private, ${advice}.`);
    }
    if (status === 404) {
      return new LoadError(
        `Model "${this.id}" does not exist at ${this.endpoint}, and there is no folder of that name.`,
      );
    }
    return new LoadError(`${this.endpoint} answered ${status} for model "${this.id}".`);
  }
}

async function fetchOrExplain(url: string, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, init);
  } catch (error) {
    const code = (error as { code?: string }).code;
    const reason = code ?? (error instanceof Error ? error.message : String(error));
    throw new HubUnreachableError(`${new URL(url).origin} can't be reached (${reason}).`, { cause: error });
  }
}
