import * as v from 'valibot';
import { ValidationError } from '../../errors/validation-error.ts';
import { notSupported } from '../errors.ts';
import { integer, isObject, string } from './fields.ts';
import {
  encodingFields,
  type PoolingInput,
  parsePoolingBody,
  poolingBodies,
  poolingFields,
  refuseUnsupportedPooling,
  type VectorEncoding,
  vectorEncoding,
} from './pooling-fields.ts';

const poolingEntries = {
  ...poolingFields,
  ...encodingFields,
  task: v.nullish(string),
  dimensions: v.nullish(integer),
};
const poolingSchema = v.object(poolingEntries);

export const poolBodies = poolingBodies('Pooling', poolingEntries);

export interface PoolingRequestBody extends v.InferOutput<typeof poolingSchema> {
  input: PoolingInput;
  encoding: VectorEncoding;
}

/** Body of /pooling. Throws ApiError, ValidationError. */
export function parsePooling(body: unknown): PoolingRequestBody {
  if (isObject(body) && body.data != null) throw notSupported('data', 'there are no input plugins');
  const { request, input } = parsePoolingBody(body, poolingEntries);
  refuseUnsupportedPooling(request);
  if (request.dimensions != null) throw new ValidationError('dimensions is currently not supported', 'dimensions');
  return { ...request, input, encoding: vectorEncoding(request) };
}
