import { dlopen, FFIType, suffix } from 'bun:ffi';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { cacheFolder, PACKAGE_ROOT } from '../package-layout.ts';

const PLATFORM = `${process.platform}-${process.arch}`;
const FILE = `libbao_llguidance.${suffix}`;
/** The Rust package, and where the library of it lies that comes along. */
export const LIBRARY_SOURCE = join(PACKAGE_ROOT, 'native', 'llguidance');
export const VENDORED_LIBRARY = join(PACKAGE_ROOT, 'vendor', 'llguidance', PLATFORM, FILE);

const { ptr, i32, u32, u64_fast: size } = FFIType;

const SYMBOLS = {
  bao_llg_has_vocabulary: { args: [ptr, size], returns: i32 },
  bao_llg_add_vocabulary: { args: [ptr, size, ptr, size, ptr, ptr, size], returns: i32 },
  bao_llg_compile: { args: [ptr, size, ptr, size, ptr, size], returns: ptr },
  bao_llg_grammar_status: { args: [ptr], returns: i32 },
  bao_llg_grammar_message: { args: [ptr, ptr, size], returns: i32 },
  bao_llg_free_grammar: { args: [ptr], returns: FFIType.void },
  bao_llg_new_matcher: { args: [ptr, ptr, i32, ptr], returns: ptr },
  bao_llg_free_matcher: { args: [ptr], returns: FFIType.void },
  bao_llg_matcher_status: { args: [ptr], returns: i32 },
  bao_llg_advance: { args: [ptr, ptr, size], returns: i32 },
  bao_llg_work_now: { args: [ptr], returns: FFIType.void },
  bao_llg_wait: { args: [ptr, size, u32], returns: FFIType.void },
  bao_llg_copy_masks: { args: [ptr, size, ptr, size], returns: i32 },
  bao_llg_num_live: { args: [], returns: i32 },
} as const;

export type GuidanceLibrary = ReturnType<typeof dlopen<typeof SYMBOLS>>['symbols'];

let opened: GuidanceLibrary | undefined;

/**
 * llguidance for this machine: the one that comes along where its hash is right and the system can load it, else the one that
 * scripts/build-llguidance.ts has built.
 *
 * @throws Error that says why neither can be used, and how to get one
 */
export function openGuidanceLibrary(): GuidanceLibrary {
  opened ??= open();
  return opened;
}

/** Where a build of the sources that are there goes; of other sources, to another folder. */
export function builtLibraryPath(): string {
  const hash = new Bun.CryptoHasher('sha256');
  const sources = existsSync(LIBRARY_SOURCE) ? ['Cargo.toml', 'Cargo.lock', ...rustFiles()] : [];
  for (const file of sources) hash.update(file).update(readFileSync(join(LIBRARY_SOURCE, file)));
  return join(cacheFolder(), 'native', 'llguidance', `${PLATFORM}-${hash.digest('hex').slice(0, 16)}`, FILE);
}

/** Of the file's content, as SHA256SUMS has it. */
export function libraryHash(path: string): string {
  return new Bun.CryptoHasher('sha256').update(readFileSync(path)).digest('hex');
}

function rustFiles(): string[] {
  return readdirSync(join(LIBRARY_SOURCE, 'src'))
    .map((file) => join('src', file))
    .sort();
}

function open(): GuidanceLibrary {
  const problems: string[] = [];
  for (const path of [VENDORED_LIBRARY, builtLibraryPath()]) {
    if (!existsSync(path)) continue;
    try {
      if (path === VENDORED_LIBRARY) checkLibraryHash(path);
      return dlopen(path, SYMBOLS).symbols;
    } catch (error) {
      problems.push(error instanceof Error ? error.message : String(error));
    }
  }
  const why = problems.length === 0 ? `none comes along for ${PLATFORM}` : problems.join('; ');
  throw new Error(`there is no grammar engine (${why}); \`bun scripts/build-llguidance.ts\` builds it with cargo`);
}

/** Throws Error where the hash is not the one that SHA256SUMS beside it has. */
export function checkLibraryHash(path: string): void {
  const [noted] = readFileSync(join(dirname(path), 'SHA256SUMS'), 'utf8').split(/\s/);
  const found = libraryHash(path);
  if (found !== noted) throw new Error(`the SHA-256 of ${path} is ${found} and should be ${noted}`);
}
