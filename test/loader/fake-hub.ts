export interface FakeHubOptions {
  /** File contents by path. Those ending in .safetensors are LFS files, kept by a storage server of another origin. */
  files: Record<string, string | Uint8Array>;
  id?: string;
  commit?: string;
  /** Branches and tags of the commit. Default main. */
  revisions?: string[];
  /** Only this token may read. */
  token?: string;
  gated?: boolean;
  /** Content requests of the storage break off after so many bytes, as often as the list is long. */
  cutAfter?: number[];
  /** The storage does not know ranges. */
  ignoreRanges?: boolean;
  /** What the storage holds in place of the file. */
  damaged?: Record<string, Uint8Array>;
  /** Status of the next API requests, in order. */
  apiStatuses?: number[];
}

interface SeenRequest {
  path: string;
  authorization: string | null;
  range: string | null;
}

export const COMMIT = '0123456789abcdef0123456789abcdef01234567';

/** A server that plays the Hub's API for one model, and one that plays its storage. */
export class FakeHub implements AsyncDisposable {
  readonly requests: SeenRequest[] = [];
  readonly storageRequests: SeenRequest[] = [];
  readonly #hub: Bun.Server<undefined>;
  readonly #storage: Bun.Server<undefined>;
  readonly #cuts: number[];
  readonly #apiStatuses: number[];

  constructor(private readonly options: FakeHubOptions) {
    this.#cuts = [...(options.cutAfter ?? [])];
    this.#apiStatuses = [...(options.apiStatuses ?? [])];
    this.#hub = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: (request) => this.#answer(request) });
    this.#storage = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: (request) => this.#answerContent(request) });
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#hub.port}`;
  }

  get id(): string {
    return this.options.id ?? 'org/tiny';
  }

  etagOf(path: string): string {
    const content = bytesOf(this.options.files[path]!);
    if (isLfs(path)) return new Bun.CryptoHasher('sha256').update(content).digest('hex');
    return new Bun.CryptoHasher('sha1').update(`blob ${content.byteLength}\0`).update(content).digest('hex');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#hub.stop(true), this.#storage.stop(true)]);
  }

  #answer(request: Request): Response {
    const path = decodeURIComponent(new URL(request.url).pathname);
    this.requests.push(seen(path, request));
    const refused = this.#refuse(path, request);
    if (refused !== null) return refused;
    const commit = this.options.commit ?? COMMIT;
    if (path.startsWith(`/api/models/${this.id}/tree/`)) return Response.json(this.#tree(path));
    if (path.startsWith(`/api/models/${this.id}/revision/`)) {
      const revision = path.slice(`/api/models/${this.id}/revision/`.length);
      if (![commit, ...(this.options.revisions ?? ['main'])].includes(revision)) return fail(404, 'RevisionNotFound');
      return Response.json({ _id: '1', id: this.id, sha: commit, lastModified: '2026-01-01T00:00:00.000Z' });
    }
    const file = path.slice(`/${this.id}/resolve/${commit}/`.length);
    if (this.options.files[file] === undefined) return fail(404, 'EntryNotFound');
    if (!isLfs(file)) return new Response(bytesOf(this.options.files[file]));
    const location = `http://127.0.0.1:${this.#storage.port}/${encodeURIComponent(file)}?signature=x`;
    return new Response(null, { status: 302, headers: { location, 'x-linked-etag': `"${this.etagOf(file)}"` } });
  }

  #refuse(path: string, request: Request): Response | null {
    const status = path.startsWith('/api/') ? this.#apiStatuses.shift() : undefined;
    if (status !== undefined && status !== 200) return fail(status, '');
    if (this.options.gated) return fail(403, 'GatedRepo');
    const { token } = this.options;
    if (token !== undefined && request.headers.get('authorization') !== `Bearer ${token}`)
      return fail(401, 'RepoNotFound');
    return path.includes(`/${this.id}/`) ? null : fail(404, 'RepoNotFound');
  }

  /** The entries of one folder, "" being the root. */
  #tree(apiPath: string): unknown[] {
    const folder = apiPath.slice(`/api/models/${this.id}/tree/`.length).split('/').slice(1).join('/');
    const inside = Object.entries(this.options.files).filter(([path]) => folderOf(path) === folder);
    const entries = inside.map(([path, content]) => {
      const size = bytesOf(content).byteLength;
      const etag = this.etagOf(path);
      const entry = { type: 'file', path, size, oid: isLfs(path) ? 'f'.repeat(40) : etag };
      return isLfs(path) ? { ...entry, lfs: { oid: etag, size, pointerSize: 130 } } : entry;
    });
    if (folder !== '') return entries;
    const folders = new Set(['original', ...Object.keys(this.options.files).map(folderOf)]);
    folders.delete('');
    return [...entries, ...[...folders].map((path) => ({ type: 'directory', path, size: 0, oid: 'e'.repeat(40) }))];
  }

  #answerContent(request: Request): Response {
    const file = decodeURIComponent(new URL(request.url).pathname.slice(1));
    this.storageRequests.push(seen(file, request));
    const content = this.options.damaged?.[file] ?? bytesOf(this.options.files[file]!);
    const start = this.options.ignoreRanges
      ? 0
      : Number(/^bytes=(\d+)-$/.exec(request.headers.get('range') ?? '')?.[1] ?? 0);
    if (start > 0 && start >= content.byteLength) return new Response(null, { status: 416 });
    const headers: Record<string, string> = {};
    if (start > 0) headers['content-range'] = `bytes ${start}-${content.byteLength - 1}/${content.byteLength}`;
    const cut = this.#cuts.shift();
    const body = content.subarray(start, cut === undefined ? undefined : start + cut);
    return new Response(body.slice(), { status: start > 0 ? 206 : 200, headers });
  }
}

function folderOf(path: string): string {
  return path.split('/').slice(0, -1).join('/');
}

function isLfs(path: string): boolean {
  return path.endsWith('.safetensors');
}

function bytesOf(content: string | Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(content as Uint8Array));
}

function seen(path: string, request: Request): SeenRequest {
  return { path, authorization: request.headers.get('authorization'), range: request.headers.get('range') };
}

function fail(status: number, code: string): Response {
  return Response.json({ error: 'refused' }, { status, headers: code === '' ? {} : { 'x-error-code': code } });
}
