import { dlopen, FFIType } from 'bun:ffi';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, PACKAGE_ROOT } from '../package-layout.ts';

const { platform, arch } = process;
const FILE = `libbao_llguidance.${platform === 'darwin' ? 'dylib' : 'so'}`;
/** Where scripts/build-llguidance.ts puts what it builds, and the one that comes along. */
const CANDIDATES = [
  join(cacheFolder(), 'native', 'llguidance', `${platform}-${arch}`, FILE),
  join(PACKAGE_ROOT, 'vendor', 'llguidance', `${platform}-${arch}`, FILE),
];

const { ptr, i32, u32, u64_fast: size } = FFIType;

const SYMBOLS = {
  bao_llg_has_vocabulary: { args: [ptr, size], returns: i32 },
  bao_llg_add_vocabulary: { args: [ptr, size, ptr, size, ptr, ptr, size], returns: i32 },
  bao_llg_compile: { args: [ptr, size, ptr, size, ptr, size], returns: ptr },
  bao_llg_grammar_status: { args: [ptr], returns: i32 },
  bao_llg_grammar_message: { args: [ptr, ptr, size], returns: i32 },
  bao_llg_free_grammar: { args: [ptr], returns: FFIType.void },
  bao_llg_new_matcher: { args: [ptr], returns: ptr },
  bao_llg_free_matcher: { args: [ptr], returns: FFIType.void },
  bao_llg_fill_masks: { args: [ptr, size, ptr, size], returns: i32 },
  bao_llg_accept: { args: [ptr, u32], returns: i32 },
} as const;

export type GuidanceLibrary = ReturnType<typeof dlopen<typeof SYMBOLS>>['symbols'];

let opened: GuidanceLibrary | undefined;

/** llguidance for this machine. Throws Error that says how to get it where it is missing. */
export function openGuidanceLibrary(): GuidanceLibrary {
  if (opened === undefined) {
    const path = CANDIDATES.find(existsSync);
    if (path === undefined) {
      throw new Error(
        `there is no grammar engine for ${platform}-${arch}; \`bun scripts/build-llguidance.ts\` builds it with cargo`,
      );
    }
    opened = dlopen(path, SYMBOLS).symbols;
  }
  return opened;
}
