import * as v from 'valibot';
import { ValidationError } from '../../errors/validation-error.ts';
import { bodyError } from './body-error.ts';
import { describedAs } from './field-metadata.ts';
import { anyObject, integerBetween, isObject, string } from './fields.ts';
import { parseBody } from './parse-body.ts';
import { checkNumInputs, poolingFields, refuseRemoved, refuseUnsupportedPooling } from './pooling-fields.ts';

const scoreFields = {
  ...poolingFields,
  max_tokens_per_query: v.optional(integerBetween(0), 0),
  max_tokens_per_doc: v.optional(integerBetween(0), 0),
  instruction: v.nullish(string),
  chat_template_kwargs: v.nullish(anyObject),
};
const TEXT = {
  anyOf: [{ type: 'string' }, { type: 'object', properties: { text: { type: 'string' } }, required: ['text'] }],
};
const texts = v.pipe(v.unknown(), describedAs<unknown>({ anyOf: [...TEXT.anyOf, { type: 'array', items: TEXT }] }));
const scoreSchema = v.object(scoreFields);
export const rerankSchema = v.object({
  ...scoreFields,
  query: v.pipe(v.unknown(), describedAs<unknown>({ type: 'string' })),
  documents: texts,
  top_n: v.optional(integerBetween(0), 0),
});

export type ScoreFields = v.InferOutput<typeof scoreSchema>;

export interface ScoreRequest extends ScoreFields {
  /** As many as texts2, or one for all of them; at least one. */
  texts1: string[];
  texts2: string[];
}

export interface RerankRequest extends ScoreFields {
  query: string;
  documents: string[];
  /** Best documents to answer with; 0: all. */
  topN: number;
}

/** The names by which the two sides are given, in vLLM's order. */
const SIDES = [
  ['queries', 'documents'],
  ['queries', 'items'],
  ['data_1', 'data_2'],
  ['text_1', 'text_2'],
] as const;

/** What /score takes, for its description: one of the pairs of names. */
export const scoreBodies = {
  ScoreQueriesDocumentsRequest: v.object({ ...scoreFields, queries: texts, documents: texts }),
  ScoreQueriesItemsRequest: v.object({ ...scoreFields, queries: texts, items: texts }),
  ScoreDataRequest: v.object({ ...scoreFields, data_1: texts, data_2: texts }),
  ScoreTextRequest: v.object({ ...scoreFields, text_1: texts, text_2: texts }),
};

/** Body of /score. Throws ApiError, ValidationError. */
export function parseScore(body: unknown): ScoreRequest {
  refuseRemoved(body);
  const request = parseBody(scoreSchema, body);
  refuseUnsupportedPooling(request);
  const given = body as Record<string, unknown>;
  const sides = SIDES.find(([one, two]) => given[one] != null && given[two] != null);
  if (sides === undefined) throw missingSides(given);
  const [texts1, texts2] = sides.map((field) => toTexts(given[field], field)) as [string[], string[]];
  if (texts1.length > 1 && texts1.length !== texts2.length) {
    throw new ValidationError('Input lengths must be either 1:1, 1:N or N:N', sides[0]);
  }
  return { ...request, texts1, texts2 };
}

/** Body of /rerank. Throws ApiError, ValidationError. */
export function parseRerank(body: unknown): RerankRequest {
  refuseRemoved(body);
  const { query, documents, top_n: topN, ...request } = parseBody(rerankSchema, body);
  refuseUnsupportedPooling(request);
  const queries = toTexts(query, 'query');
  if (queries.length > 1) throw new ValidationError('`query` must be one text, not a list.', 'query');
  return { ...request, query: queries[0]!, documents: toTexts(documents, 'documents'), topN };
}

/** Texts as they are, or as objects with a `text`, which is how other rerank APIs name a document. */
function toTexts(value: unknown, field: string): string[] {
  const list = Array.isArray(value) ? value : [value];
  if (list.length === 0) throw new ValidationError(`At least one text must be given in \`${field}\`.`, field);
  checkNumInputs(list.length, field);
  return list.map((item) => {
    const text = isObject(item) ? item.text : item;
    if (typeof text === 'string') return text;
    throw new ValidationError(`\`${field}\` must be a text or a list of texts; models read text only.`, field);
  });
}

function missingSides(body: Record<string, unknown>): Error {
  const [one, two] = SIDES[0];
  const absent = SIDES.flat().some((field) => body[field] != null) ? two : one;
  return bodyError([{ type: 'missing', loc: `body.${absent}`, msg: 'Field required', input: body }]);
}
