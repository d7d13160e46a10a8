/** Requests in progress, counted by all API servers together in shared memory. */
export class SharedLoad {
  private readonly count: Int32Array;

  /** @param buffer of another thread's SharedLoad; by default a new count, of 0 */
  constructor(readonly buffer = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT)) {
    this.count = new Int32Array(buffer);
  }

  get active(): number {
    return Atomics.load(this.count, 0);
  }

  add(change: number): void {
    Atomics.add(this.count, 0, change);
  }
}
