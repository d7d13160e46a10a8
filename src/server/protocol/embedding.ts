import * as v from 'valibot';
import { integer } from './fields.ts';
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

const embeddingEntries = { ...poolingFields, ...encodingFields, dimensions: v.nullish(integer) };
const embeddingSchema = v.object(embeddingEntries);

export const embeddingBodies = poolingBodies('Embedding', embeddingEntries);

export interface EmbeddingRequest extends v.InferOutput<typeof embeddingSchema> {
  input: PoolingInput;
  encoding: VectorEncoding;
}

/** Body of /v1/embeddings. Throws ApiError, ValidationError. */
export function parseEmbedding(body: unknown): EmbeddingRequest {
  const { request, input } = parsePoolingBody(body, embeddingEntries);
  refuseUnsupportedPooling(request);
  return { ...request, input, encoding: vectorEncoding(request) };
}
