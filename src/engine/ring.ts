/**
 * A bounded single-producer, single-consumer queue of byte messages in a SharedArrayBuffer.
 *
 * Positions are u32 byte counts that wrap around; the data area is a power of two, so `position & mask` is the place. A frame is a word (length of
 * the piece, the top bit set when more pieces of the same message follow) and the piece, padded to four bytes. Messages longer than a quarter of
 * the ring travel in pieces, so their size is not limited by the ring's.
 *
 * The writer never waits: what does not fit is kept in order and goes out with `flush`. Who wakes the reader is `core-link.ts`'s affair.
 */
const HEADER_BYTES = 128;
const WRITE_POSITION = 0;
/** In another cache line than the write position. */
const READ_POSITION = 16;
const MORE = 0x8000_0000;
/** Pieces that have gone out before they are taken off the list of those that wait, many at once. */
const MIN_COMPACTED = 64;

export function createRing(capacityBytes: number): SharedArrayBuffer {
  if (capacityBytes < 1024 || (capacityBytes & (capacityBytes - 1)) !== 0) {
    throw new RangeError(`A ring's capacity must be a power of two of at least 1024 bytes, got ${capacityBytes}.`);
  }
  return new SharedArrayBuffer(HEADER_BYTES + capacityBytes);
}

/** The parts of a ring that both ends use. */
class RingView {
  protected readonly header: Int32Array;
  protected readonly data: Uint8Array;
  protected readonly words: Uint32Array;
  protected readonly mask: number;

  constructor(buffer: SharedArrayBuffer) {
    this.header = new Int32Array(buffer, 0, HEADER_BYTES / 4);
    this.data = new Uint8Array(buffer, HEADER_BYTES);
    this.words = new Uint32Array(buffer, HEADER_BYTES);
    this.mask = this.data.length - 1;
  }

  get capacity(): number {
    return this.data.length;
  }
}

export class RingWriter extends RingView {
  private readonly maxPiece = this.capacity / 4;
  private position = Atomics.load(this.header, WRITE_POSITION) >>> 0;
  /** Pieces that did not fit yet, oldest first, and whether more of the same message follows. */
  private readonly pending: { bytes: Uint8Array; more: boolean }[] = [];
  private pendingHead = 0;
  private pendingTotal = 0;

  /** Bytes that wait for room. */
  get pendingBytes(): number {
    return this.pendingTotal;
  }

  /** Bytes that the reader has not taken yet, in the ring or waiting for room. */
  get unreadBytes(): number {
    return this.usedBytes + this.pendingTotal;
  }

  private get usedBytes(): number {
    return (this.position - (Atomics.load(this.header, READ_POSITION) >>> 0)) >>> 0;
  }

  /** Sends a message, or queues it behind what waits already. The bytes may be reused when this returns. */
  send(message: Uint8Array): void {
    if (this.hasPending) this.flush();
    for (let start = 0; start === 0 || start < message.length; start += this.maxPiece) {
      const end = Math.min(start + this.maxPiece, message.length);
      const more = end < message.length;
      if (this.hasPending || !this.tryWrite(message, start, end, more)) {
        this.pending.push({ bytes: message.slice(start, end), more });
        this.pendingTotal += end - start;
      }
    }
  }

  /** Writes what waits as far as there is room. True when nothing waits any more. */
  flush(): boolean {
    while (this.pendingHead < this.pending.length) {
      const { bytes, more } = this.pending[this.pendingHead]!;
      if (!this.tryWrite(bytes, 0, bytes.length, more)) break;
      this.pendingHead++;
      this.pendingTotal -= bytes.length;
    }
    this.compact();
    return !this.hasPending;
  }

  /** Whether anything waits for room, be it an empty message. */
  get hasPending(): boolean {
    return this.pendingHead < this.pending.length;
  }

  /** A reader that is always behind would otherwise have the writer keep all it ever sent. */
  private compact(): void {
    const half = this.pending.length / 2;
    if (this.hasPending && (this.pendingHead < MIN_COMPACTED || this.pendingHead < half)) return;
    this.pending.splice(0, this.pendingHead);
    this.pendingHead = 0;
  }

  private tryWrite(source: Uint8Array, start: number, end: number, more: boolean): boolean {
    const length = end - start;
    const frame = 4 + ((length + 3) & ~3);
    if (frame > this.capacity - this.usedBytes) return false;
    this.words[(this.position & this.mask) >>> 2] = more ? (length | MORE) >>> 0 : length;
    const at = (this.position + 4) & this.mask;
    const first = Math.min(length, this.capacity - at);
    this.data.set(source.subarray(start, start + first), at);
    if (first < length) this.data.set(source.subarray(start + first, end), 0);
    this.position = (this.position + frame) >>> 0;
    Atomics.store(this.header, WRITE_POSITION, this.position | 0);
    return true;
  }
}

export class RingReader extends RingView {
  private position = Atomics.load(this.header, READ_POSITION) >>> 0;
  /** Pieces of a message whose end has not come yet. */
  private pieces: Uint8Array[] = [];

  get isEmpty(): boolean {
    return Atomics.load(this.header, WRITE_POSITION) >>> 0 === this.position;
  }

  /** The next whole message, the caller's to keep, or null. */
  receive(): Uint8Array | null {
    while (!this.isEmpty) {
      const word = this.words[(this.position & this.mask) >>> 2]!;
      const length = word & ~MORE;
      const piece = this.take(length);
      if (word & MORE) {
        this.pieces.push(piece);
      } else if (this.pieces.length === 0) {
        return piece;
      } else {
        this.pieces.push(piece);
        const message = Buffer.concat(this.pieces);
        this.pieces = [];
        return message;
      }
    }
    return null;
  }

  private take(length: number): Uint8Array {
    const piece = new Uint8Array(length);
    const at = (this.position + 4) & this.mask;
    const first = Math.min(length, this.capacity - at);
    piece.set(this.data.subarray(at, at + first));
    if (first < length) piece.set(this.data.subarray(0, length - first), first);
    this.position = (this.position + 4 + ((length + 3) & ~3)) >>> 0;
    Atomics.store(this.header, READ_POSITION, this.position | 0);
    return piece;
  }
}
