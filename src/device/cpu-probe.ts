import { dlopen, type Pointer, toArrayBuffer } from 'bun:ffi';
import { type CpuIsa, ISA_CODES } from './cpu-library.ts';

/** The functions of cpu/probe.cpp, which belong to no device. */
const SYMBOLS = {
  bao_detect_isa: { args: [], returns: 'i32' },
  bao_preferred_isa: { args: [], returns: 'i32' },
  bao_memory_alloc: { args: ['i64'], returns: 'ptr' },
  bao_memory_free: { args: ['ptr'], returns: 'i32' },
  bao_probe_read: { args: ['ptr', 'i64', 'i32', 'i32'], returns: 'f64' },
  bao_probe_multiply: { args: ['i32', 'i32', 'f64'], returns: 'f64' },
} as const;

const FILL_CHUNK = 1 << 20;

/** Measures what a number of threads of this machine can do at most. */
export class CpuProbe {
  private readonly library;
  private readonly buffer: Pointer;

  /**
   * @param libraryPath the kernel library (scripts/build-cpu.ts)
   * @param bufferBytes memory to read, much more than the last cache holds
   * @throws Error where the memory can't be had
   */
  constructor(
    libraryPath: string,
    private readonly bufferBytes: number,
  ) {
    this.library = dlopen(libraryPath, SYMBOLS);
    const buffer = this.library.symbols.bao_memory_alloc(bufferBytes);
    if (buffer === null) throw new Error(`can't allocate ${bufferBytes} bytes to measure read bandwidth`);
    this.buffer = buffer as Pointer;
    this.touch();
  }

  /** The instruction set whose kernels are fastest here. */
  get isa(): CpuIsa {
    return isaOf(this.library.symbols.bao_preferred_isa());
  }

  /** The highest instruction set that runs here: another one where a lower one's kernels are faster. */
  get highestIsa(): CpuIsa {
    return isaOf(this.library.symbols.bao_detect_isa());
  }

  /** Bytes per second that `threads` threads read together, over `passes` passes of the buffer. */
  readBandwidth(threads: number, passes: number): number {
    return this.library.symbols.bao_probe_read(this.buffer, this.bufferBytes, threads, passes);
  }

  /** Operations per second (a multiply-add is two) of `threads` threads with what `isa` multiplies bfloat16 weights with, in registers alone, over `seconds`. */
  multiplyPeak(isa: CpuIsa, threads: number, seconds: number): number {
    return this.library.symbols.bao_probe_multiply(ISA_CODES[isa], threads, seconds);
  }

  /** Frees the buffer. The library stays loaded: others may use it. */
  close(): void {
    this.library.symbols.bao_memory_free(this.buffer);
  }

  /** Untouched pages would all be the one page of zeros. */
  private touch(): void {
    for (let at = 0; at < this.bufferBytes; at += FILL_CHUNK) {
      new Uint8Array(toArrayBuffer(this.buffer, at, Math.min(FILL_CHUNK, this.bufferBytes - at))).fill(1);
    }
  }
}

function isaOf(code: number): CpuIsa {
  return (Object.keys(ISA_CODES) as CpuIsa[])[code]!;
}
