import type { LoRARequest } from '../lora/lora-request.ts';
import { requestOf } from '../lora/served-adapters.ts';
import { ApiError } from './errors.ts';
import type { ServerContext } from './server-context.ts';

/** A name that clients may ask for, and what it stands for. */
export interface ServedModel {
  /** In answers: the canonical name of the base model, or the adapter's. */
  name: string;
  /** null: the base model. */
  lora: LoRARequest | null;
}

/**
 * The model a request asks for; without a name the one that is served.
 *
 * @throws ApiError 404
 */
export function resolveModel(
  { config, adapters }: Pick<ServerContext, 'config' | 'adapters'>,
  requested: string | null | undefined,
): ServedModel {
  const names = config.model.servedModelName;
  if (requested == null || requested === '' || names.includes(requested)) return { name: names[0]!, lora: null };
  const adapter = adapters.get(requested);
  if (adapter !== null) return { name: adapter.name, lora: requestOf(adapter) };
  const shown = requested.length > 200 ? `${requested.slice(0, 200)}…` : requested;
  const message = `The model \`${shown}\` does not exist. Valid aliases: ${names.join(', ')}.`;
  throw new ApiError(404, 'NotFoundError', message, 'model');
}
