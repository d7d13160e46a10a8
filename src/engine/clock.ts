/** Milliseconds since the epoch with fractions; comparable between threads. */
export function wallClockMs(): number {
  return performance.timeOrigin + performance.now();
}
