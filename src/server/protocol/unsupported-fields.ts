import { notSupported } from '../errors.ts';
import type { GenerationFields } from './generation-fields.ts';

/**
 * Refuses by name what a request asks for and this server can't do; a field that is there but asks for nothing (null, false, the default) passes.
 *
 * @throws ValidationError
 */
export function refuseUnsupported(request: GenerationFields): void {
  if (request.watermarking) throw notSupported('watermarking');
  const absent = ['kv_transfer_params', 'ec_transfer_params'] as const;
  for (const field of absent) if (request[field] != null) throw notSupported(field);
}
