/**
 * `bun scripts/build-executable.ts [FILE] [--this-machine]`: one executable with the server, the CPU library, the grammar engine and the demo
 * model inside. The kernels are for all instruction sets, or for this machine's alone, which is faster to build.
 * What must be a file (a library to load, weights to map) is unpacked once to the user's cache folder.
 */
import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import type { BunPlugin } from 'bun';
import { PACKAGE_ROOT } from '../src/package-layout.ts';
import { ensureCpuLibrary } from './build-cpu.ts';

const SOURCES = join(PACKAGE_ROOT, 'src');
/** The command, then what Workers run. Their common folder is the root of names inside the executable. */
const ENTRY_POINTS = [
  'main.ts',
  'engine/core/core-worker.ts',
  'server/process/api-server-worker.ts',
  'tokenizer/encode-worker.ts',
  'structured-output/xgrammar/xgrammar-worker.ts',
];

const isForThisMachine = process.argv.includes('--this-machine');
const outfile = resolve(process.argv.slice(2).find((word) => !word.startsWith('--')) ?? 'bao');

/** A file of the unpacked package and where it is now. */
interface PackedFile {
  /** "models/demo/config.json" */
  name: string;
  path: string;
}

async function packedFiles(): Promise<PackedFile[]> {
  const library = await ensureCpuLibrary({ sets: isForThisMachine ? 'best' : 'all' });
  const platform = `${process.platform}-${process.arch}`;
  const names = ['models/demo/*', 'models/demo-pirate/*', `vendor/llguidance/${platform}/*`].flatMap((pattern) => [
    ...new Bun.Glob(pattern).scanSync(PACKAGE_ROOT),
  ]);
  const files = names.sort().map((name) => ({ name, path: join(PACKAGE_ROOT, name) }));
  return [...files, { name: `prebuilt/${basename(library)}`, path: library }];
}

/** The executable's own src/package-layout.ts. */
async function layoutModule(files: readonly PackedFile[]): Promise<string> {
  let hash = 0n;
  for (const { name, path } of files)
    hash = BigInt(Bun.hash(await Bun.file(path).bytes(), BigInt(Bun.hash(name, hash))));
  const imports = files.map(({ path }, i) => `import file${i} from ${JSON.stringify(path)} with { type: 'file' };`);
  const entries = files.map(({ name }, i) => `[${JSON.stringify(name)}, file${i}]`);
  const unpacked = JSON.stringify(`executable-${hash.toString(16).padStart(16, '0')}`);
  return `${imports.join('\n')}
import { join } from 'node:path';
import { unpack } from ${JSON.stringify(join(PACKAGE_ROOT, 'scripts/unpack.ts'))};
import { userCacheFolder } from ${JSON.stringify(join(SOURCES, 'user-cache-folder.ts'))};
export const cacheFolder = (environment = process.env) => environment.BAO_CACHE_DIR || userCacheFolder(environment);
export const PACKAGE_ROOT = unpack(join(cacheFolder(), ${unpacked}), [${entries.join(', ')}]);
export const SOURCE_URL = 'file:///$bunfs/root/';
`;
}

function layoutPlugin(contents: string): BunPlugin {
  return {
    name: 'package-layout',
    setup(build) {
      build.onLoad({ filter: /src\/package-layout\.ts$/ }, () => ({ contents, loader: 'ts' }));
    },
  };
}

const scratch = mkdtempSync(join(tmpdir(), 'bao-executable-'));
try {
  const built = join(scratch, 'bao');
  await Bun.build({
    entrypoints: ENTRY_POINTS.map((entry) => join(SOURCES, entry)),
    root: SOURCES,
    target: 'bun',
    minify: { syntax: true, whitespace: true },
    plugins: [layoutPlugin(await layoutModule(await packedFiles()))],
    // A native addon of a package of its own; without it the JavaScript tokenizer does the work.
    external: ['tokenizers'],
    compile: { outfile: built },
  });
  if (!existsSync(built)) throw new Error('Bun has built no executable');
  copyFileSync(built, outfile);
  console.log(outfile);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
