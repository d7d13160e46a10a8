import * as v from 'valibot';
import { ValidationError } from '../../errors/validation-error.ts';
import { notSupported } from '../errors.ts';
import { describedAs } from './field-metadata.ts';
import { int64, integer, integerBetween, list, literal, string } from './fields.ts';
import { parseBody } from './parse-body.ts';
import { checkNumInputs } from './pooling-fields.ts';

export const COHERE_TYPES = ['float', 'binary', 'ubinary', 'base64'] as const;
export type CohereEmbeddingType = (typeof COHERE_TYPES)[number];

const content = v.object({
  type: literal('text', 'image_url'),
  text: v.nullish(string),
  image_url: v.nullish(v.unknown()),
});

export const cohereEmbedSchema = v.object({
  model: v.nullish(string),
  input_type: v.nullish(string),
  texts: v.nullish(list(string)),
  images: v.nullish(v.pipe(v.unknown(), describedAs<unknown>({ type: 'array', items: { type: 'string' } }))),
  inputs: v.nullish(list(v.object({ content: list(content) }))),
  output_dimension: v.nullish(integer),
  embedding_types: v.nullish(list(literal(...COHERE_TYPES))),
  truncate: v.optional(literal('NONE', 'START', 'END'), 'END'),
  max_tokens: v.nullish(integerBetween(0)),
  priority: v.optional(int64),
});

type CohereFields = Omit<v.InferOutput<typeof cohereEmbedSchema>, 'texts' | 'images' | 'inputs' | 'embedding_types'>;

export interface CohereEmbedRequest extends CohereFields {
  /** Texts as they were given, or the parts of a text together. */
  texts: string[];
  /** The texts were given as parts of messages. */
  areMessages: boolean;
  embeddingTypes: readonly CohereEmbeddingType[];
}

/** Body of /v2/embed. Throws ApiError, ValidationError. */
export function parseCohereEmbed(body: unknown): CohereEmbedRequest {
  const { texts, images, inputs, embedding_types: types, ...fields } = parseBody(cohereEmbedSchema, body);
  if (images != null) throw notSupported('images', 'models read text only');
  const given = texts ?? inputs ?? [];
  if ((texts == null) === (inputs == null) || given.length === 0) {
    throw new ValidationError(
      'Exactly one of texts, images, or inputs must be provided, and it must be non-empty',
      'texts',
    );
  }
  checkNumInputs(given.length, texts == null ? 'inputs' : 'texts');
  return {
    ...fields,
    texts: texts ?? inputs!.map((input) => input.content.map(textOf).join('\n')),
    areMessages: texts == null,
    embeddingTypes: types == null || types.length === 0 ? ['float'] : types,
  };
}

function textOf({ type, text }: v.InferOutput<typeof content>): string {
  if (type === 'image_url') throw notSupported('inputs', 'models read text only');
  if (text == null) throw new ValidationError("Content with type 'text' requires text", 'inputs');
  return text;
}
