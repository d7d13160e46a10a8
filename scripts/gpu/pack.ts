/**
 * `bun scripts/gpu/pack.ts [--tar FILE]`: what `scripts/gpu-verify` needs on a machine without Bun and without a network, in .cache/gpu-pack: Bun (xz) and
 * the packages that server, tests and benchmarks import. With --tar also a tar file of the whole tree with it, to be unpacked in an empty folder.
 * Ends with an error where the tree and the pack together are more than 64 MiB.
 */
import { existsSync, mkdirSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dir, '../..');
const FOLDER = '.cache/gpu-pack';
const LIMIT_BYTES = 64 * 2 ** 20;
/** Imported only when asked for by a flag or by a model that is not there: native tokenizers, tracing, the Hub. */
const LEFT_OUT = /^(tokenizers|@opentelemetry\/.*|@huggingface\/hub)$/;
/** Development dependencies that the device's tests import. */
const FOR_TESTS = ['fast-check'];
/** Tracked files that no stage reads. */
const TREE_WITHOUT = /^(bench\/results|vendor|native|deploy|docs|test\/(e2e|reference|server|parsers))\//;
/** For the compiler's code for x86 first, then a window that spans the whole file. */
const BUN_XZ = ['--x86', '--lzma2=preset=9e,dict=128MiB'];

interface PackageJson {
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

const readPackage = (folder: string): PackageJson => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));

/** Folders of the packages and of all that they need, relative to the root. */
export function packagesNeeded(root: string): string[] {
  const found = new Set<string>();
  const visit = (name: string, from: string) => {
    const places = [join(from, 'node_modules', name), join(root, 'node_modules', name)];
    const folder = places.find(existsSync);
    // What is optional and not for this platform is not there.
    if (folder === undefined || found.has(folder)) return;
    found.add(folder);
    const { dependencies = {}, optionalDependencies = {} } = readPackage(folder);
    for (const each of Object.keys({ ...dependencies, ...optionalDependencies })) visit(each, folder);
  };
  const direct = Object.keys(readPackage(root).dependencies ?? {}).filter((name) => !LEFT_OUT.test(name));
  for (const name of [...direct, ...FOR_TESTS]) visit(name, root);
  return [...found].map((folder) => folder.slice(root.length + 1)).sort();
}

/** Tracked files and new ones that git does not ignore. */
function checkoutFiles(): string[] {
  const { stdout, exitCode } = Bun.spawnSync(['git', 'ls-files', '-co', '--exclude-standard'], { cwd: ROOT });
  if (exitCode !== 0) throw new Error('the pack is made of what git knows of: this is no checkout');
  return stdout
    .toString()
    .split('\n')
    .filter((file) => file !== '' && existsSync(join(ROOT, file)));
}

/** Runs a program with its input; throws where it fails. */
function run(command: string[], stdin: string): void {
  const { exitCode, stderr } = Bun.spawnSync(command, { cwd: ROOT, stdin: Buffer.from(stdin) });
  if (exitCode !== 0) throw new Error(`${command[0]} ended with code ${exitCode}: ${stderr.toString().trim()}`);
}

const bytesOf = (path: string) => statSync(join(ROOT, path)).size;
const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

function packBun(): void {
  const target = join(ROOT, FOLDER, 'bun.xz');
  if (existsSync(target)) return;
  const bun = realpathSync(process.execPath);
  run(['sh', '-c', `xz -c ${BUN_XZ.join(' ')} '${bun}' > '${target}.part' && mv '${target}.part' '${target}'`], '');
}

function main(argv: readonly string[]): void {
  const tarAt = argv.indexOf('--tar');
  const tar = tarAt < 0 ? null : resolve(argv[tarAt + 1] ?? 'bao-gpu.tar');
  mkdirSync(join(ROOT, FOLDER), { recursive: true });
  packBun();
  const modules = `${FOLDER}/node_modules.tar.xz`;
  run(
    [
      'tar',
      '-cJf',
      modules,
      '--exclude=*.map',
      '--exclude=*.d.ts',
      '--exclude=*.d.cts',
      '--exclude=*.d.mts',
      '-T',
      '-',
    ],
    packagesNeeded(ROOT).join('\n'),
  );
  const packed = [`${FOLDER}/bun.xz`, modules];
  // A checkout travels whole.
  const tree = tar === null ? checkoutFiles() : checkoutFiles().filter((file) => !TREE_WITHOUT.test(file));
  const total = [...tree, ...packed].reduce((sum, file) => sum + bytesOf(file), 0);
  console.log(
    `${FOLDER}: ${packed.map((file) => `${file.slice(FOLDER.length + 1)} ${mebibytes(bytesOf(file))}`).join(', ')}`,
  );
  console.log(`with the tree: ${mebibytes(total)}`);
  if (total > LIMIT_BYTES) throw new Error(`that is more than the ${mebibytes(LIMIT_BYTES)} that travel`);
  if (tar === null) return;
  mkdirSync(dirname(tar), { recursive: true });
  rmSync(tar, { force: true });
  run(['tar', '-cf', tar, '-T', '-'], [...tree, ...packed].join('\n'));
  console.log(`${tar}: ${mebibytes(statSync(tar).size)}`);
}

if (import.meta.main) {
  try {
    main(process.argv.slice(2));
  } catch (error) {
    console.error(`pack: ${error instanceof Error ? error.message : error}`);
    process.exit(1);
  }
}
