import { LoadError } from '../loader/load-error.ts';
import { HfConfigError } from '../models/config-fields.ts';
import type { LoRARequest } from './lora-request.ts';

/** An adapter that can't be loaded: the message names it and says why. */
export class LoRALoadError extends Error {
  constructor(name: string, reason: string, options?: ErrorOptions) {
    super(`Loading lora ${name} failed: ${reason}`, options);
    this.name = 'LoRALoadError';
  }
}

/** Runs what reads an adapter's files; what is wrong with them becomes a LoRALoadError. */
export function readingAdapter<Result>({ name }: Pick<LoRARequest, 'name'>, read: () => Result): Result {
  try {
    return read();
  } catch (error) {
    if (error instanceof LoadError || error instanceof HfConfigError) {
      throw new LoRALoadError(name, error.message, { cause: error });
    }
    throw error;
  }
}
