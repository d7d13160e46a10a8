/**
 * Builds the grammar engine (native/llguidance) with cargo into the folder for caches, for machines that can't use the library in vendor/.
 * `--vendor` puts it into vendor/ and writes its hash: for those who change native/llguidance or raise llguidance's version.
 */
import { copyFileSync, mkdirSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { cacheFolder } from '../src/package-layout.ts';
import {
  builtLibraryPath,
  LIBRARY_SOURCE,
  libraryHash,
  VENDORED_LIBRARY,
} from '../src/structured-output/guidance-library.ts';

const TARGET = join(cacheFolder(), 'native', 'llguidance', 'target');

/** Runs cargo in native/llguidance; ends the process with cargo's code where it fails. */
function cargo(args: string[], env: Record<string, string> = {}): void {
  const { exitCode } = Bun.spawnSync(['cargo', ...args, '--locked'], {
    cwd: LIBRARY_SOURCE,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (exitCode !== 0) process.exit(exitCode);
}

/** Keeps the building machine's paths out of the library: they tell of it, and would make each machine's library another one. */
function remappedPaths(): string {
  const crates = join(process.env.CARGO_HOME ?? join(homedir(), '.cargo'), 'registry', 'src');
  // One folder for each registry, named after its host.
  const registries = readdirSync(crates).map((registry) => `--remap-path-prefix=${join(crates, registry)}=crates`);
  return [`--remap-path-prefix=${LIBRARY_SOURCE}=llguidance`, ...registries].join('\u001f');
}

if (Bun.which('cargo') === null) {
  console.error('build-llguidance: cargo (Rust 1.87 or newer) is needed, see https://rustup.rs.');
  process.exit(1);
}
cargo(['fetch']);
cargo(['build', '--release', '--target-dir', TARGET], { CARGO_ENCODED_RUSTFLAGS: remappedPaths() });

const isVendored = process.argv.includes('--vendor');
const path = isVendored ? VENDORED_LIBRARY : builtLibraryPath();
mkdirSync(dirname(path), { recursive: true });
// Not over the old one: a server may have it mapped.
copyFileSync(join(TARGET, 'release', basename(path)), `${path}.new`);
renameSync(`${path}.new`, path);
if (isVendored) writeFileSync(join(dirname(path), 'SHA256SUMS'), `${libraryHash(path)}  ${basename(path)}\n`);
console.log(path);
