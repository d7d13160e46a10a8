import { dlopen, type FFIFunction } from 'bun:ffi';
import type { NativeFunction } from '../cpu-library.ts';
import { NoCudaDeviceError } from './no-cuda-device.ts';

/** Opens the first of several sonames or paths. Throws a NoCudaDeviceError with the loader's reasons where none can be had. */
export function openLibrary<Names extends string>(
  what: string,
  candidates: readonly string[],
  symbols: Readonly<Record<Names, FFIFunction>>,
): Record<Names, NativeFunction> {
  const reasons: string[] = [];
  for (const candidate of candidates) {
    try {
      const library = dlopen(candidate, symbols);
      return library.symbols as unknown as Record<Names, NativeFunction>;
    } catch (error) {
      reasons.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new NoCudaDeviceError(`${what} can't be opened (${reasons.join('; ')})`);
}
