import { type Pointer, toArrayBuffer } from 'bun:ffi';
import { type DeviceEvent, type DevicePtr, OutOfMemoryError } from '../device.ts';
import { freeOnFailure } from '../release.ts';
import { CudaError, type CudaRuntime } from './cuda-runtime.ts';

/** Freed blocks up to this size are kept: cudaFree and cudaMalloc stop the device. */
const MAX_POOLED_BYTES = 1 << 20;
const ALIGNMENT = 256;

interface Allocation {
  /** As asked for. */
  bytes: number;
  /** As taken from the device. */
  size: number;
  purpose: string;
}

/** Pinned memory beside device memory of the same size. */
export interface StagingPair {
  size: number;
  device: DevicePtr;
  host: number;
}

/** What the arena needs of the stream it serves. */
export interface StreamClock {
  record(): DeviceEvent;
  query(event: DeviceEvent): boolean;
  wait(event: DeviceEvent): void;
}

function readable(bytes: number): string {
  return bytes < 2 ** 20 ? `${(bytes / 2 ** 10).toFixed(1)} KiB` : `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function sizeClass(bytes: number): number {
  const rounded = Math.max(ALIGNMENT, bytes);
  if (rounded > MAX_POOLED_BYTES) return Math.ceil(rounded / ALIGNMENT) * ALIGNMENT;
  return 2 ** Math.ceil(Math.log2(rounded));
}

function isOutOfMemory(error: unknown): boolean {
  return error instanceof CudaError && error.errorName === 'cudaErrorMemoryAllocation';
}

/** All memory of one device that Bao holds: every byte has a purpose, and small blocks are used again. For one stream. */
export class CudaMemory {
  /** Gives back what can be done without, where memory runs out. */
  giveBack: () => void = () => {};
  readonly #allocations = new Map<DevicePtr, Allocation>();
  readonly #freeBlocks = new Map<number, DevicePtr[]>();
  readonly #freeStaging: { pair: StagingPair; event: DeviceEvent }[] = [];
  readonly #pinned = new Set<number>();

  constructor(
    private readonly runtime: CudaRuntime,
    private readonly stream: number,
    private readonly clock: StreamClock,
    /** Takes exactly what is asked for, so that an access past it can be seen. */
    private readonly exact: boolean,
  ) {}

  /** Memory that reads as zeros for what is enqueued from now on. Throws an OutOfMemoryError with the purpose where there is none left. */
  alloc(bytes: number, purpose: string): DevicePtr {
    if (!Number.isSafeInteger(bytes) || bytes <= 0) throw new Error(`can't allocate ${bytes} bytes for ${purpose}`);
    const size = this.#sizeOf(bytes);
    // On one stream a block is free for the next user as soon as its last user is enqueued.
    const address = this.#freeBlocks.get(size)?.pop() ?? this.#malloc(size, purpose);
    this.#allocations.set(address, { bytes, size, purpose });
    this.#zero(address, size);
    return address;
  }

  free(address: DevicePtr): void {
    const allocation = this.#allocations.get(address);
    if (!allocation) throw new Error(`free of ${address}, which was not allocated here or is freed already`);
    this.#allocations.delete(address);
    if (allocation.size <= MAX_POOLED_BYTES) this.#keep(allocation.size, address);
    else this.runtime.check('cudaFree', this.runtime.functions.cudaFree(address));
  }

  /** A zero-filled pair. Throws an OutOfMemoryError, and keeps nothing then. */
  allocStaging(bytes: number, purpose: string): StagingPair {
    const size = this.#sizeOf(bytes);
    const reusable = this.#freeStaging.findIndex(({ pair, event }) => pair.size === size && this.clock.query(event));
    if (reusable >= 0) {
      const { pair } = this.#freeStaging.splice(reusable, 1)[0]!;
      this.#allocations.set(pair.device, { bytes, size, purpose });
      this.#zero(pair.device, size);
      new Uint8Array(toArrayBuffer(pair.host as Pointer, 0, size)).fill(0);
      return pair;
    }
    const device = this.alloc(bytes, purpose);
    const host = freeOnFailure(
      () => this.free(device),
      () => this.#allocPinned(size, purpose),
    );
    new Uint8Array(toArrayBuffer(host as Pointer, 0, size)).fill(0);
    return { size, host, device };
  }

  /** Copies that are enqueued may still use the pair. */
  freeStaging(pair: StagingPair): void {
    if (!this.#allocations.delete(pair.device)) throw new Error(`free of staging memory ${pair.device}, which is free`);
    const event = this.clock.record();
    if (pair.size <= MAX_POOLED_BYTES) {
      this.#freeStaging.push({ pair, event });
      return;
    }
    this.clock.wait(event);
    this.#pinned.delete(pair.host);
    this.runtime.check('cudaFreeHost', this.runtime.functions.cudaFreeHost(pair.host));
    this.runtime.check('cudaFree', this.runtime.functions.cudaFree(pair.device));
  }

  info(): { freeBytes: number; totalBytes: number } {
    const { freeBytes, totalBytes } = this.runtime.memoryInfo();
    return { freeBytes, totalBytes };
  }

  report(): Record<string, number> {
    const report: Record<string, number> = {};
    for (const { bytes, purpose } of this.#allocations.values()) report[purpose] = (report[purpose] ?? 0) + bytes;
    return report;
  }

  /** Bytes that may be accessed from an address on; 0 where it is not the device's. */
  bytesFrom(address: DevicePtr): number {
    for (const [begin, { bytes }] of this.#allocations) {
      if (address >= begin && address < begin + bytes) return begin + bytes - address;
    }
    return 0;
  }

  /** Gives everything back, without looking at codes: a device that failed refuses all of it. */
  close(): void {
    const { cudaFree, cudaFreeHost } = this.runtime.functions;
    const pooled = [...this.#freeBlocks.values()].flat();
    const staged = this.#freeStaging.map(({ pair }) => pair.device);
    for (const address of [...this.#allocations.keys(), ...pooled, ...staged]) cudaFree(address);
    for (const address of this.#pinned) cudaFreeHost(address);
    this.#allocations.clear();
    this.#freeBlocks.clear();
    this.#freeStaging.length = 0;
    this.#pinned.clear();
  }

  #sizeOf(bytes: number): number {
    return this.exact ? bytes : sizeClass(bytes);
  }

  #keep(size: number, address: DevicePtr): void {
    const blocks = this.#freeBlocks.get(size) ?? [];
    this.#freeBlocks.set(size, blocks);
    blocks.push(address);
  }

  #zero(address: DevicePtr, size: number): void {
    this.runtime.check('cudaMemsetAsync', this.runtime.functions.cudaMemsetAsync(address, 0, size, this.stream));
  }

  #malloc(size: number, purpose: string): DevicePtr {
    return this.#take(
      () => this.runtime.malloc(size),
      () => {
        const held = Object.entries(this.report()).map(([name, bytes]) => `${name} ${readable(bytes)}`);
        return `the CUDA device is out of memory: no ${readable(size)} for ${purpose} (held: ${held.join(', ') || 'nothing'})`;
      },
    );
  }

  #allocPinned(size: number, purpose: string): number {
    const host = this.#take(
      () => this.runtime.hostAlloc(size),
      () => `the host has no ${readable(size)} of pinned memory for ${purpose}`,
    );
    this.#pinned.add(host);
    return host;
  }

  /** What is kept only to be faster goes before memory is refused. */
  #take(allocate: () => number, refusal: () => string): number {
    try {
      return allocate();
    } catch (error) {
      if (!isOutOfMemory(error)) throw error;
    }
    this.runtime.functions.cudaGetLastError();
    this.giveBack();
    this.#releaseUnused();
    try {
      return allocate();
    } catch (error) {
      if (!isOutOfMemory(error)) throw error;
      this.runtime.functions.cudaGetLastError();
      throw new OutOfMemoryError(refusal());
    }
  }

  /** Gives back blocks and pairs that wait for another user. */
  #releaseUnused(): void {
    this.clock.wait(this.clock.record());
    const { cudaFree, cudaFreeHost } = this.runtime.functions;
    const pairs = this.#freeStaging.splice(0).map(({ pair }) => pair);
    const blocks = [...this.#freeBlocks.values()].flat();
    this.#freeBlocks.clear();
    for (const address of [...blocks, ...pairs.map(({ device }) => device)])
      this.runtime.check('cudaFree', cudaFree(address));
    for (const { host } of pairs) {
      this.#pinned.delete(host);
      this.runtime.check('cudaFreeHost', cudaFreeHost(host));
    }
  }
}
