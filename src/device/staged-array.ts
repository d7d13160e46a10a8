import type { Device, DevicePtr, StagingBuffer } from './device.ts';

/** Room for the first allocation, so that short lists never grow one by one. */
const MIN_WORDS = 256;

/**
 * A growing array of 4-byte words that host and device share. Growing moves it, so it must not happen while enqueued work uses the old place.
 */
export class StagedArray {
  private buffer: StagingBuffer | null = null;
  /** The host's views of the same words. */
  i32 = new Int32Array(0);
  f32 = new Float32Array(0);

  constructor(
    private readonly device: Device,
    private readonly purpose: string,
  ) {}

  /** Device address, 0 before the first `reserve`. */
  get ptr(): DevicePtr {
    return this.buffer?.ptr ?? 0;
  }

  /** Makes room for `words`; the first `keep` words survive a move. */
  reserve(words: number, keep = 0): void {
    if (words <= this.i32.length) return;
    const capacity = Math.max(MIN_WORDS, words, this.i32.length * 2);
    const next = this.device.staging(capacity * 4, this.purpose);
    const i32 = new Int32Array(next.host, 0, capacity);
    i32.set(this.i32.subarray(0, keep));
    this.buffer?.free();
    this.buffer = next;
    this.i32 = i32;
    this.f32 = new Float32Array(next.host, 0, capacity);
  }

  upload(words: number): void {
    if (words > 0) this.buffer?.upload(words * 4);
  }

  download(words: number): void {
    if (words > 0) this.buffer?.download(words * 4);
  }

  free(): void {
    this.buffer?.free();
    this.buffer = null;
    this.i32 = new Int32Array(0);
    this.f32 = new Float32Array(0);
  }
}
