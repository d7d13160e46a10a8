import { ValidationError } from '../errors/validation-error.ts';
import type { LoRARequest as EngineLoRARequest } from '../lora/lora-request.ts';
import { AdapterNotFoundError, type ServedAdapters } from '../lora/served-adapters.ts';

export interface LoRARequestOptions {
  loraName: string;
  /** A folder in PEFT format or an embedded adapter; may be left out for the name of one that is loaded already (`loraModules`). */
  loraPath?: string;
}

/**
 * An adapter to generate with; it is loaded when it is first used. Needs the option `enableLora`.
 *
 * @example await llm.generate('hello', params, { loraRequest: new LoRARequest({ loraName: 'pirate', loraPath: 'demo-pirate' }) })
 */
export class LoRARequest {
  readonly loraName: string;
  readonly loraPath: string | null;

  constructor({ loraName, loraPath }: LoRARequestOptions) {
    this.loraName = loraName;
    this.loraPath = loraPath ?? null;
  }
}

/** Adapters for all prompts, or one for each of them; null: the base model. */
export type LoRAInput = LoRARequest | null | readonly (LoRARequest | null)[];

/** The engine's adapter of each prompt. Throws ValidationError for what can't be loaded, and for another number of adapters than of prompts. */
export async function resolveLoras(
  adapters: ServedAdapters,
  given: LoRAInput | undefined,
  numPrompts: number,
): Promise<(EngineLoRARequest | null)[]> {
  if (!isList(given)) return new Array(numPrompts).fill(await resolveLora(adapters, given));
  if (given.length !== numPrompts) {
    throw new ValidationError(
      `The lengths of prompts (${numPrompts}) and lora requests (${given.length}) must be the same.`,
      'loraRequest',
    );
  }
  const resolved: (EngineLoRARequest | null)[] = [];
  for (const request of given) resolved.push(await resolveLora(adapters, request));
  return resolved;
}

/** Throws ValidationError for an adapter that can't be loaded. */
export async function resolveLora(
  adapters: ServedAdapters,
  request: LoRARequest | null | undefined,
): Promise<EngineLoRARequest | null> {
  if (request == null) return null;
  const { loraName: name, loraPath: path } = request;
  if (path !== null) return adapters.ensure({ name, path });
  const known = adapters.get(name);
  if (known === null)
    throw new AdapterNotFoundError(`The lora adapter '${name}' cannot be found.`, 'loraRequest', name);
  return known;
}

function isList(given: LoRAInput | undefined): given is readonly (LoRARequest | null)[] {
  return Array.isArray(given);
}
