import { dlopen, type Pointer, toArrayBuffer } from 'bun:ffi';
import { closeSync, fstatSync, openSync } from 'node:fs';
import { LoadError } from './load-error.ts';

const PROT_READ = 1;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = process.platform === 'darwin' ? 0x1000 : 0x20;
const MADV_WILLNEED = 3;

const SYMBOLS = {
  mmap: { args: ['usize', 'usize', 'i32', 'i32', 'i32', 'i64'], returns: 'i64' },
  munmap: { args: ['usize', 'usize'], returns: 'i32' },
  madvise: { args: ['usize', 'usize', 'i32'], returns: 'i32' },
} as const;

const openLibc = (path: string) => dlopen(path, SYMBOLS);
type Libc = ReturnType<typeof openLibc>['symbols'];
let libc: Libc | null = null;

/** Opened on first use: Workers must not load libraries at the same moment, so importing this module must not. */
function getLibc(): Libc {
  if (libc !== null) return libc;
  const arch = process.arch === 'arm64' ? 'aarch64' : 'x86_64';
  const names = process.platform === 'darwin' ? ['libSystem.B.dylib'] : ['libc.so.6', `libc.musl-${arch}.so.1`];
  const failures: string[] = [];
  for (const name of names) {
    try {
      libc = openLibc(name).symbols;
      return libc;
    } catch (error) {
      failures.push(`${name}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new Error(`No C library for mmap found (${failures.join('; ')}).`);
}

function map(address: number, length: number, flags: number, fd: number, offset: number): number {
  const result = Number(getLibc().mmap(address, length, PROT_READ, flags, fd, offset));
  return result === -1 ? 0 : result;
}

/** Reserves `length` bytes of address space; parts of it are then replaced by {@link mapInto}. Throws when there is none. */
export function reserve(length: number): number {
  const address = map(0, length, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address === 0) throw new Error(`mmap could not reserve ${length} bytes of address space.`);
  return address;
}

/** Replaces a reserved range by a read-only view of the file. Address and offset are multiples of the page size. */
export function mapInto(address: number, length: number, fd: number, offset: number): void {
  if (map(address, length, MAP_SHARED | MAP_FIXED, fd, offset) !== address) {
    throw new Error(`mmap of ${length} bytes at offset ${offset} failed.`);
  }
}

export function unmap(address: number, length: number): void {
  getLibc().munmap(address, length);
}

/** A file mapped read-only: its pages are the kernel's page cache, read when first touched and shared between processes. */
export class MappedFile {
  readonly size: number;
  readonly path: string;
  #address: number;

  /** Throws LoadError that names the file. An empty file maps to nothing. */
  constructor(path: string) {
    this.path = path;
    const fd = openFile(path);
    try {
      this.size = fstatSync(fd).size;
      this.#address = this.size === 0 ? 0 : map(0, this.size, MAP_PRIVATE, fd, 0);
      if (this.size > 0 && this.#address === 0) {
        throw new LoadError(`${path}: ${this.size} bytes could not be mapped into memory.`);
      }
    } finally {
      closeSync(fd);
    }
  }

  /** Address of the first byte; 0 once closed. */
  get address(): number {
    return this.#address;
  }

  /** Bytes of the mapping, not copied; invalid after {@link close}. */
  bytes(offset: number, length: number): Uint8Array {
    return length === 0 ? new Uint8Array(0) : new Uint8Array(toArrayBuffer(this.#address as Pointer, offset, length));
  }

  /** Asks the kernel to read ahead, so that weights come in while other things are set up. A hint: failure is of no account. */
  prefetch(): void {
    if (this.#address !== 0) getLibc().madvise(this.#address, this.size, MADV_WILLNEED);
  }

  close(): void {
    if (this.#address === 0) return;
    unmap(this.#address, this.size);
    this.#address = 0;
  }
}

function openFile(path: string): number {
  try {
    return openSync(path, 'r');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason = code === 'ENOENT' ? 'the file does not exist' : `it can't be read (${code})`;
    throw new LoadError(`${path}: ${reason}.`, { cause: error });
  }
}
