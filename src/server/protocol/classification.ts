import * as v from 'valibot';
import {
  type PoolingInput,
  parsePoolingBody,
  poolingBodies,
  poolingFields,
  refuseUnsupportedPooling,
} from './pooling-fields.ts';

const classificationSchema = v.object(poolingFields);

export const classificationBodies = poolingBodies('Classification', poolingFields);

export interface ClassificationRequest extends v.InferOutput<typeof classificationSchema> {
  input: PoolingInput;
}

/** Body of /classify. Throws ApiError, ValidationError. */
export function parseClassification(body: unknown): ClassificationRequest {
  const { request, input } = parsePoolingBody(body, poolingFields);
  refuseUnsupportedPooling(request);
  return { ...request, input };
}
