/** Little-endian writer into one growing buffer, reused from message to message. Numbers are aligned only in arrays. */
export class ByteWriter {
  private buffer = new ArrayBuffer(4096);
  private view = new DataView(this.buffer);
  private bytes = new Uint8Array(this.buffer);
  private words = new Int32Array(this.buffer);
  private capacity = this.buffer.byteLength;
  private at = 0;
  private static readonly encoder = new TextEncoder();

  reset(): this {
    this.at = 0;
    return this;
  }

  /** What was written since `reset`; valid until the next write. */
  finish(): Uint8Array {
    return this.bytes.subarray(0, this.at);
  }

  u8(value: number): void {
    this.reserve(1);
    this.bytes[this.at++] = value;
  }

  bool(value: boolean): void {
    this.u8(value ? 1 : 0);
  }

  u32(value: number): void {
    this.reserve(4);
    this.view.setUint32(this.at, value, true);
    this.at += 4;
  }

  i32(value: number): void {
    this.reserve(4);
    this.view.setInt32(this.at, value, true);
    this.at += 4;
  }

  f64(value: number): void {
    this.reserve(8);
    this.view.setFloat64(this.at, value, true);
    this.at += 8;
  }

  /** A number or null. */
  optionalF64(value: number | null): void {
    this.bool(value !== null);
    if (value !== null) this.f64(value);
  }

  string(value: string): void {
    this.reserve(4 + value.length * 3);
    const { written } = ByteWriter.encoder.encodeInto(value, this.bytes.subarray(this.at + 4));
    this.view.setUint32(this.at, written, true);
    this.at += 4 + written;
  }

  optionalString(value: string | null): void {
    this.bool(value !== null);
    if (value !== null) this.string(value);
  }

  /** Any list of integers that fit in 32 bits. */
  i32Array(values: ArrayLike<number>): void {
    this.u32(values.length);
    this.align();
    this.reserve(values.length * 4);
    this.words.set(values, this.at >>> 2);
    this.at += values.length * 4;
  }

  f32Array(values: Float32Array): void {
    this.u32(values.length);
    this.align();
    this.reserve(values.length * 4);
    new Float32Array(this.buffer, this.at, values.length).set(values);
    this.at += values.length * 4;
  }

  private align(): void {
    this.reserve(3);
    this.at = (this.at + 3) & ~3;
  }

  private reserve(more: number): void {
    const needed = this.at + more;
    if (needed <= this.capacity) return;
    this.capacity = Math.max((needed + 3) & ~3, this.capacity * 2);
    const grown = new ArrayBuffer(this.capacity);
    new Uint8Array(grown).set(this.bytes);
    this.buffer = grown;
    this.view = new DataView(grown);
    this.bytes = new Uint8Array(grown);
    this.words = new Int32Array(grown);
  }
}

/** Reads what a ByteWriter wrote. Arrays are copies. */
export class ByteReader {
  private readonly view: DataView;
  private at = 0;
  private static readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(private readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(): number {
    return this.view.getUint8(this.at++);
  }

  bool(): boolean {
    return this.u8() !== 0;
  }

  u32(): number {
    this.at += 4;
    return this.view.getUint32(this.at - 4, true);
  }

  i32(): number {
    this.at += 4;
    return this.view.getInt32(this.at - 4, true);
  }

  f64(): number {
    this.at += 8;
    return this.view.getFloat64(this.at - 8, true);
  }

  optionalF64(): number | null {
    return this.bool() ? this.f64() : null;
  }

  string(): string {
    const length = this.u32();
    this.at += length;
    return ByteReader.decoder.decode(this.bytes.subarray(this.at - length, this.at));
  }

  optionalString(): string | null {
    return this.bool() ? this.string() : null;
  }

  i32Array(): Int32Array {
    return new Int32Array(this.words());
  }

  f32Array(): Float32Array {
    return new Float32Array(this.words());
  }

  /** What `i32Array` wrote, as numbers: for short lists, since it allocates nothing else. */
  i32List(): number[] {
    const length = this.u32();
    this.at = (this.at + 3) & ~3;
    const list: number[] = [];
    for (let i = 0; i < length; i++, this.at += 4) list.push(this.view.getInt32(this.at, true));
    return list;
  }

  /** A number of items, then each of them. */
  list<T>(readItem: () => T): T[] {
    const length = this.u32();
    const list: T[] = [];
    for (let i = 0; i < length; i++) list.push(readItem());
    return list;
  }

  private words(): ArrayBuffer {
    const length = this.u32() * 4;
    this.at = (this.at + 3) & ~3;
    const words = new ArrayBuffer(length);
    new Uint8Array(words).set(this.bytes.subarray(this.at, this.at + length));
    this.at += length;
    return words;
  }
}
