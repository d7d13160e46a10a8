import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { downloadModel, type HubOptions } from '../../src/loader/hub.ts';
import { hubCacheFolder } from '../../src/loader/hub-cache.ts';
import { formatBytes } from '../../src/loader/hub-progress.ts';
import { LoadError } from '../../src/loader/load-error.ts';
import { openSafetensors } from '../../src/loader/safetensors.ts';
import { configureLogging, type LoggingOptions } from '../../src/logging/logger.ts';
import { COMMIT, FakeHub, type FakeHubOptions } from './fake-hub.ts';
import { encodeFloats, withFolder } from './safetensors-file.ts';

const WEIGHTS = encodeFloats({ a: { shape: [2000], values: Array.from({ length: 2000 }, (_, i) => i) } });
const FILES = { 'config.json': '{"a": 1}', 'tokenizer.json': '{}', 'model.safetensors': WEIGHTS };
const TOKEN = 'hf_secret';

let logBefore: LoggingOptions;
const logged: string[] = [];
beforeAll(() => {
  logBefore = configureLogging({ level: 'info', format: 'text', write: (line) => logged.push(line) });
});
afterAll(() => {
  configureLogging(logBefore);
});

interface Scene {
  hub: FakeHub;
  cache: string;
  /** The model's folder in the cache. */
  repo: string;
  download(options?: HubOptions): Promise<string>;
}

async function withHub(options: Partial<FakeHubOptions>, run: (scene: Scene) => Promise<void>): Promise<void> {
  await withFolder({}, async (cache) => {
    await using hub = new FakeHub({ files: FILES, ...options });
    const download = (given: HubOptions = {}) =>
      downloadModel(hub.id, {
        retryDelayMs: 0,
        ...given,
        env: { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache, HF_HOME: cache, ...given.env },
      });
    await run({ hub, cache, repo: join(cache, 'models--org--tiny'), download });
  });
}

describe('download', () => {
  test('fetches how a Sentence Transformers model pools and what follows, and nothing else from folders', async () => {
    const pooling = {
      '1_Pooling/config.json': '{"b": 2}',
      '1_Pooling/notes.json': '{}',
      '2_Dense/config.json': '{"c": 3}',
      '2_Dense/model.safetensors': 'dense',
      '2_Dense/pytorch_model.bin': 'dense',
      'onnx/config.json': '{}',
    };
    await withHub({ files: { ...FILES, 'modules.json': '[]', ...pooling } }, async ({ download }) => {
      const folder = await download();
      expect(readFileSync(join(folder, '1_Pooling/config.json'), 'utf8')).toBe('{"b": 2}');
      expect(readdirSync(join(folder, '1_Pooling'))).toEqual(['config.json']);
      expect(readdirSync(join(folder, '2_Dense')).sort()).toEqual(['config.json', 'model.safetensors']);
      expect(readdirSync(folder)).toContain('model.safetensors');
      expect(existsSync(join(folder, 'onnx'))).toBe(false);
    });
  });

  test('lays out blobs, refs and snapshots as huggingface_hub does', async () => {
    await withHub({}, async ({ hub, repo, download }) => {
      const folder = await download();
      expect(folder).toBe(join(repo, 'snapshots', COMMIT));
      expect(readFileSync(join(repo, 'refs', 'main'), 'utf8')).toBe(COMMIT);
      expect(readdirSync(folder).sort()).toEqual(Object.keys(FILES).sort());
      for (const [name, content] of Object.entries(FILES)) {
        const path = join(folder, name);
        expect(lstatSync(path).isSymbolicLink()).toBe(true);
        expect(readlinkSync(path)).toBe(join('..', '..', 'blobs', hub.etagOf(name)));
        expect(Buffer.compare(readFileSync(path), Buffer.from(content as string))).toBe(0);
      }
      const source = openSafetensors(folder);
      expect(source.get('a', [2000]).dtype).toBe('float32');
      source.close();
    });
  });

  test('takes what a server needs, once', async () => {
    const files = {
      ...FILES,
      'chat_template.jinja': '{{ x }}',
      'merges.txt': 'a b',
      'consolidated.safetensors': encodeFloats({ z: { shape: [1], values: [1] } }),
      'pytorch_model.bin': 'x',
      'README.md': 'x',
      'original/params.json': '{}',
      '.gitattributes': 'x',
      '..\\evil.json': '{}',
    };
    await withHub({ files }, async ({ download }) => {
      const folder = await download();
      expect(readdirSync(folder).sort()).toEqual([
        'chat_template.jinja',
        'config.json',
        'merges.txt',
        'model.safetensors',
        'tokenizer.json',
      ]);
    });
  });

  test('without weights for a tokenizer', async () => {
    await withHub({ files: { 'tokenizer.json': '{}' } }, async ({ download }) => {
      expect(readdirSync(await download({ weights: false }))).toEqual(['tokenizer.json']);
      await expect(download()).rejects.toThrow('Model "org/tiny" has no *.safetensors weights.');
    });
    await withHub({ files: { 'config.json': '{}', 'pytorch_model.bin': 'x' } }, async ({ download }) => {
      await expect(download()).rejects.toThrow('has no *.safetensors weights; it has pytorch_model.bin.');
    });
  });

  test('a second start asks for the commit only', async () => {
    await withHub({}, async ({ hub, download }) => {
      const folder = await download();
      const before = hub.requests.length;
      expect(await download()).toBe(folder);
      expect(hub.requests.slice(before).every((request) => request.path.startsWith('/api/'))).toBe(true);
      expect(hub.storageRequests.length).toBe(1);
    });
  });

  test('--download-dir, branches with slashes, tags and commits', async () => {
    await withHub({ revisions: ['main', 'refs/pr/1', 'v1.0'] }, async ({ cache, download }) => {
      const downloadDir = join(cache, 'elsewhere');
      for (const revision of ['refs/pr/1', 'v1.0']) {
        const folder = await download({ downloadDir, revision });
        expect(folder).toBe(join(downloadDir, 'models--org--tiny', 'snapshots', COMMIT));
        expect(readFileSync(join(downloadDir, 'models--org--tiny', 'refs', revision), 'utf8')).toBe(COMMIT);
      }
      expect(await download({ downloadDir, revision: COMMIT })).toEndWith(COMMIT);
      expect(existsSync(join(downloadDir, 'models--org--tiny', 'refs', COMMIT))).toBe(false);
    });
  });

  test('tells a log reader what is going on', async () => {
    logged.length = 0;
    await withHub({}, async ({ download }) => void (await download()));
    expect(logged.join('')).toContain(`Downloading org/tiny: 3 files, ${formatBytes(WEIGHTS.byteLength + 10)}`);
  });
});

describe('resume', () => {
  test('a connection that breaks off goes on where it was', async () => {
    await withHub({ cutAfter: [3000, 2000] }, async ({ hub, download }) => {
      const folder = await download();
      expect(hub.storageRequests.map((request) => request.range)).toEqual([null, 'bytes=3000-', 'bytes=5000-']);
      expect(Buffer.compare(readFileSync(join(folder, 'model.safetensors')), WEIGHTS)).toBe(0);
      expect(readdirSync(join(folder, '..', '..', 'blobs')).some((name) => name.endsWith('.incomplete'))).toBe(false);
    });
  });

  test('so does the next run', async () => {
    await withHub({ cutAfter: [1000, 0, 0, 0, 0] }, async ({ hub, repo, download }) => {
      await expect(download()).rejects.toThrow('the connection ended after 1000 of');
      const part = join(repo, 'blobs', `${hub.etagOf('model.safetensors')}.incomplete`);
      expect(existsSync(join(repo, 'refs', 'main'))).toBe(false);
      hub.storageRequests.length = 0;
      const folder = await download();
      expect(hub.storageRequests.map((request) => request.range)).toEqual(['bytes=1000-']);
      expect(existsSync(part)).toBe(false);
      expect(Buffer.compare(readFileSync(join(folder, 'model.safetensors')), WEIGHTS)).toBe(0);
    });
  });

  test('a server without ranges sends it all again', async () => {
    await withHub({ cutAfter: [3000], ignoreRanges: true }, async ({ download }) => {
      const folder = await download();
      expect(Buffer.compare(readFileSync(join(folder, 'model.safetensors')), WEIGHTS)).toBe(0);
    });
  });

  test.each([
    ['longer than the file', WEIGHTS.byteLength + 5],
    ['as long as the file and wrong', WEIGHTS.byteLength],
  ])('a left-over part that is %s does not last', async (_what, length) => {
    await withHub({}, async ({ hub, repo, download }) => {
      mkdirSync(join(repo, 'blobs'), { recursive: true });
      writeFileSync(join(repo, 'blobs', `${hub.etagOf('model.safetensors')}.incomplete`), Buffer.alloc(length));
      const folder = await download().catch(() => download());
      expect(Buffer.compare(readFileSync(join(folder, 'model.safetensors')), WEIGHTS)).toBe(0);
    });
  });

  test('content with another hash is refused and not kept', async () => {
    const damaged = { 'model.safetensors': new Uint8Array(WEIGHTS).fill(1, 4000, 4001) };
    await withHub({ damaged }, async ({ hub, repo, download }) => {
      const failure = await download().catch((error) => error);
      expect(failure).toBeInstanceOf(LoadError);
      expect(failure.message).toContain('model.safetensors: the download is damaged');
      const blobs = readdirSync(join(repo, 'blobs'));
      expect(blobs.some((name) => name.startsWith(hub.etagOf('model.safetensors')))).toBe(false);
    });
  });

  test('more bytes than announced are refused', async () => {
    const damaged = { 'model.safetensors': new Uint8Array(WEIGHTS.byteLength + 1) };
    await withHub({ damaged }, async ({ download }) => {
      await expect(download()).rejects.toThrow(`sent more than the ${WEIGHTS.byteLength} bytes`);
    });
  });
});

describe('access', () => {
  test('the token goes to the Hub and not to its storage', async () => {
    await withHub({ token: TOKEN }, async ({ hub, download }) => {
      await download({ env: { HF_TOKEN: TOKEN } });
      expect(hub.requests.every((request) => request.authorization === `Bearer ${TOKEN}`)).toBe(true);
      expect(hub.storageRequests.map((request) => request.authorization)).toEqual([null]);
    });
  });

  test('--hf-token wins over HF_TOKEN, and a stored token is found', async () => {
    await withHub({ token: TOKEN }, async ({ cache, download }) => {
      await download({ hfToken: TOKEN, env: { HF_TOKEN: 'hf_other' } });
      writeFileSync(join(cache, 'token'), `${TOKEN}\n`);
      await download();
    });
  });

  test.each<[string, Partial<FakeHubOptions>, HubOptions, string]>([
    ['401 without a token', { token: TOKEN }, {}, 'does not exist or is private'],
    ['401 tells what to do', { token: TOKEN }, {}, 'set HF_TOKEN or --hf-token'],
    ['401 with a wrong token', { token: TOKEN }, { hfToken: 'hf_x' }, 'the token given has no access'],
    ['403', { gated: true }, {}, 'Access to model "org/tiny" is restricted: accept its terms at http://'],
    ['404 of the revision', {}, { revision: 'nope' }, 'Model "org/tiny" has no revision "nope"'],
    ['a revision that is a path', {}, { revision: '../../x' }, '--revision "../../x" is not a branch, tag or commit'],
    [
      '503',
      { apiStatuses: [503] },
      {},
      'answered 503 for model "org/tiny"; try again later. Model "org/tiny" is not in the cache',
    ],
  ])('%s', async (_what, hubOptions, options, message) => {
    await withHub(hubOptions, async ({ download }) => {
      const failure = await download(options).catch((error) => error);
      expect(failure).toBeInstanceOf(LoadError);
      expect(failure.message).toContain(message);
      expect(failure.message).not.toContain('hf_');
    });
  });

  test('404 of the model', async () => {
    await withHub({}, async ({ hub, cache }) => {
      const env = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: cache, HF_HOME: cache };
      await expect(downloadModel('org/other', { env })).rejects.toThrow(
        `Model "org/other" does not exist at ${hub.endpoint}`,
      );
    });
  });
});

describe('without the Hub', () => {
  test('HF_HUB_OFFLINE asks nobody', async () => {
    await withHub({}, async ({ hub, download }) => {
      const env = { HF_HUB_OFFLINE: '1' };
      await expect(download({ env })).rejects.toThrow(
        'HF_HUB_OFFLINE is set, and revision "main" of model "org/tiny" is not in the cache',
      );
      const folder = await download();
      const before = hub.requests.length;
      expect(await download({ env })).toBe(folder);
      expect(await download({ env, revision: COMMIT })).toBe(folder);
      expect(hub.requests.length).toBe(before);
    });
  });

  test('a Hub that is not reached means the cache, with a warning', async () => {
    await withHub({}, async ({ download }) => {
      const env = { HF_ENDPOINT: 'http://127.0.0.1:1' };
      const failure = await download({ env }).catch((error) => error);
      expect(failure).toBeInstanceOf(LoadError);
      expect(failure.message).toContain(
        'http://127.0.0.1:1 can\'t be reached (ECONNREFUSED). Model "org/tiny" is not in the cache',
      );
      const folder = await download();
      logged.length = 0;
      expect(await download({ env })).toBe(folder);
      expect(logged.join('')).toContain('Using the cached snapshot of org/tiny');
    });
  });

  test('a cache that was moved still works', async () => {
    await withHub({}, async ({ cache, repo, download }) => {
      await download();
      const moved = join(cache, 'moved');
      mkdirSync(moved);
      renameSync(repo, join(moved, 'models--org--tiny'));
      const folder = await download({ downloadDir: moved, env: { HF_HUB_OFFLINE: 'true' } });
      expect(readFileSync(join(folder, 'config.json'), 'utf8')).toBe(FILES['config.json']);
      rmSync(moved, { recursive: true });
    });
  });
});

test('the cache folder follows the variables of huggingface_hub', () => {
  expect(hubCacheFolder({ HF_HUB_CACHE: '/a', HF_HOME: '/b' })).toBe('/a');
  expect(hubCacheFolder({ HF_HOME: '/b', XDG_CACHE_HOME: '/c' })).toBe('/b/hub');
  expect(hubCacheFolder({ XDG_CACHE_HOME: '/c' })).toBe('/c/huggingface/hub');
  expect(hubCacheFolder({})).toEndWith('/.cache/huggingface/hub');
});
