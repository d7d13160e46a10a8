import { ValidationError } from '../../errors/validation-error.ts';
import type { CohereEmbeddingType } from '../protocol/cohere-embed.ts';
import { vectorBytes } from './vector-bytes.ts';

const LITTLE_FLOAT32 = { format: 'base64', dtype: 'float32', endianness: 'little' } as const;

/**
 * Embeddings in the types that were asked for, by their names. `binary` and `ubinary` have a bit for each element, 1 where it is not negative, eight
 * to a byte with the first on top; `binary` bytes are 128 less.
 *
 * @throws ValidationError for bits of vectors that don't fill their bytes
 */
export function typedEmbeddings(
  vectors: readonly Float32Array[],
  types: readonly CohereEmbeddingType[],
): Partial<Record<CohereEmbeddingType, unknown[]>> {
  return Object.fromEntries(types.map((type) => [type, vectors.map((vector) => inType(vector, type))]));
}

function inType(vector: Float32Array, type: CohereEmbeddingType): number[] | string {
  switch (type) {
    case 'float':
      return [...vector];
    case 'base64':
      return vectorBytes(vector, LITTLE_FLOAT32).toString('base64');
    case 'ubinary':
      return packBits(vector);
    case 'binary':
      return packBits(vector).map((byte) => byte - 128);
  }
}

function packBits(vector: Float32Array): number[] {
  if (vector.length % 8 !== 0) {
    throw new ValidationError(
      `Embedding dimension must be a multiple of 8 for binary embedding types, but got ${vector.length}.`,
      'embedding_types',
    );
  }
  return Array.from({ length: vector.length / 8 }, (_, byte) =>
    vector.subarray(8 * byte, 8 * byte + 8).reduce((bits, value) => 2 * bits + (value >= 0 ? 1 : 0), 0),
  );
}
