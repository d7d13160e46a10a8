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
  openGuidanceLibrary,
  VENDORED_LIBRARY,
} from '../src/structured-output/guidance-library.ts';

/** Builds it where none can be loaded. Without one only requests with a constraint are refused, so that nothing here is an error. */
export function ensureGuidanceLibrary(): void {
  try {
    openGuidanceLibrary();
    return;
  } catch (error) {
    console.error(`setup: ${messageOf(error)}`);
  }
  if (Bun.which('cargo') === null) return;
  try {
    build(builtLibraryPath());
  } catch (error) {
    console.error(`setup: ${messageOf(error)}`);
  }
}

/** Throws Error where there is no cargo or it fails; cargo has said why. */
function build(path: string): void {
  if (Bun.which('cargo') === null) throw new Error('cargo (Rust 1.87 or newer) is needed, see https://rustup.rs');
  const target = join(cacheFolder(), 'native', 'llguidance', 'target');
  cargo(['fetch']);
  cargo(['build', '--release', '--target-dir', target], { CARGO_ENCODED_RUSTFLAGS: remappedPaths() });
  mkdirSync(dirname(path), { recursive: true });
  // Not over the old one: a server may have it mapped.
  copyFileSync(join(target, 'release', basename(path)), `${path}.new`);
  renameSync(`${path}.new`, path);
}

function cargo(args: string[], env: Record<string, string> = {}): void {
  const { exitCode } = Bun.spawnSync(['cargo', ...args, '--locked'], {
    cwd: LIBRARY_SOURCE,
    env: { ...process.env, ...env },
    stdio: ['ignore', process.stderr.fd, process.stderr.fd],
  });
  if (exitCode !== 0) throw new Error(`cargo ${args[0]} ended with code ${exitCode}`);
}

/** Keeps the building machine's paths out of the library: they tell of it, and would make each machine's library another one. */
function remappedPaths(): string {
  const crates = join(process.env.CARGO_HOME ?? join(homedir(), '.cargo'), 'registry', 'src');
  // One folder for each registry, named after its host.
  const registries = readdirSync(crates).map((registry) => `--remap-path-prefix=${join(crates, registry)}=crates`);
  return [`--remap-path-prefix=${LIBRARY_SOURCE}=llguidance`, ...registries].join('\u001f');
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

if (import.meta.main) {
  const isVendored = process.argv.includes('--vendor');
  const path = isVendored ? VENDORED_LIBRARY : builtLibraryPath();
  try {
    build(path);
  } catch (error) {
    console.error(`build-llguidance: ${messageOf(error)}.`);
    process.exit(1);
  }
  if (isVendored) writeFileSync(join(dirname(path), 'SHA256SUMS'), `${libraryHash(path)}  ${basename(path)}\n`);
  console.log(path);
}
