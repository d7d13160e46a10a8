/** Runs `use`, then `free`. Where `use` throws, its error is the one to tell: a device that failed refuses to free as well. */
export function freeAfter<Result>(free: () => void, use: () => Result): Result {
  const result = freeOnFailure(free, use);
  free();
  return result;
}

/** Runs `use`, and `free` only where that throws. */
export function freeOnFailure<Result>(free: () => void, use: () => Result): Result {
  try {
    return use();
  } catch (error) {
    try {
      free();
    } catch {
      // What failed first is told.
    }
    throw error;
  }
}
