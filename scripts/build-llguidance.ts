/**
 * Builds the grammar engine (native/llguidance) with cargo, for machines that vendor/ has no library for.
 * `--vendor` puts it into vendor/ and writes its hash: for those who change native/llguidance or raise llguidance's version.
 */
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { cacheFolder, PACKAGE_ROOT as ROOT } from '../src/package-layout.ts';

const SOURCE = join(ROOT, 'native', 'llguidance');
const CACHE = join(cacheFolder(), 'native', 'llguidance');
const PLATFORM = `${process.platform}-${process.arch}`;
/** Paths of the building machine stay out of the library. */
const CARGO_HOME = process.env.CARGO_HOME ?? join(homedir(), '.cargo');
const FILE = `libbao_llguidance.${process.platform === 'darwin' ? 'dylib' : 'so'}`;

const target = join(CACHE, 'target');
if (Bun.which('cargo') === null) {
  console.error('build-llguidance: cargo (Rust 1.87 or newer) is needed, see https://rustup.rs.');
  process.exit(1);
}
const { exitCode } = Bun.spawnSync(['cargo', 'build', '--release', '--locked', '--target-dir', target], {
  cwd: SOURCE,
  env: { ...process.env, RUSTFLAGS: `--remap-path-prefix=${CARGO_HOME}=cargo --remap-path-prefix=${ROOT}=bao` },
  stdio: ['ignore', 'inherit', 'inherit'],
});
if (exitCode !== 0) process.exit(exitCode);

const folder = process.argv.includes('--vendor') ? join(ROOT, 'vendor', 'llguidance', PLATFORM) : join(CACHE, PLATFORM);
const path = join(folder, FILE);
mkdirSync(folder, { recursive: true });
copyFileSync(join(target, 'release', FILE), path);
if (process.argv.includes('--vendor')) {
  const hash = new Bun.CryptoHasher('sha256').update(readFileSync(path)).digest('hex');
  writeFileSync(join(folder, 'SHA256SUMS'), `${hash}  ${FILE}\n`);
}
console.log(path);
