import * as v from 'valibot';
import { pythonInt } from '../../errors/parameter-error.ts';
import { ValidationError } from '../../errors/validation-error.ts';
import { MAX_NAMED_LOGPROBS } from '../../sampling/resolve-sampling-params.ts';
import { describedAs } from './field-metadata.ts';
import { boolean, int64, integers, string } from './fields.ts';
import { parseBody } from './parse-body.ts';
import { checkNumInputs, isTokenId } from './pooling-fields.ts';

const IDS = { type: 'array', items: { type: 'integer' } };

export const generativeScoringSchema = v.object({
  model: v.nullish(string),
  query: v.pipe(v.unknown(), describedAs<unknown>({ anyOf: [{ type: 'string' }, IDS] })),
  items: v.pipe(
    v.unknown(),
    describedAs<unknown>({
      anyOf: [
        { type: 'array', items: { type: 'string' } },
        { type: 'array', items: IDS },
      ],
    }),
  ),
  label_token_ids: integers,
  apply_softmax: v.optional(boolean, true),
  item_first: v.optional(boolean, false),
  add_special_tokens: v.optional(boolean, true),
  priority: v.optional(int64),
  request_id: v.optional(string),
});

/** Text, or ids that need no tokenizer. */
export type ScoringText = string | number[];

export interface GenerativeScoringRequest
  extends Omit<v.InferOutput<typeof generativeScoringSchema>, 'query' | 'items'> {
  query: ScoringText;
  /** At least one; texts, or ids of such. */
  items: ScoringText[];
}

/**
 * @throws ApiError where a field has the wrong type
 * @throws ValidationError for no or too many items or labels, and for labels that are no tokens
 */
export function parseGenerativeScoring(body: unknown, vocabSize: number): GenerativeScoringRequest {
  const { query, items, ...request } = parseBody(generativeScoringSchema, body);
  checkLabels(request.label_token_ids, vocabSize);
  return { ...request, query: toQuery(query), items: toItems(items) };
}

function checkLabels(ids: readonly number[], vocabSize: number): void {
  const name = 'label_token_ids';
  if (ids.length === 0) throw new ValidationError('label_token_ids must contain at least one token ID.', name);
  if (ids.length > MAX_NAMED_LOGPROBS) {
    throw new ValidationError(
      `label_token_ids has ${ids.length} IDs; it may have at most ${MAX_NAMED_LOGPROBS}.`,
      name,
    );
  }
  const unknown = ids.find((id) => id < 0 || id >= vocabSize);
  if (unknown === undefined) return;
  const range = `[0, ${vocabSize})`;
  throw new ValidationError(
    `label_token_id ${pythonInt(unknown)} is out of vocabulary range ${range}. Please provide valid token IDs.`,
    name,
  );
}

function toQuery(query: unknown): ScoringText {
  if (typeof query === 'string' || (Array.isArray(query) && query.every(isTokenId))) return query;
  throw new ValidationError('query must be a string, or a list of token ids, integers of at least 0.', 'query');
}

function toItems(items: unknown): ScoringText[] {
  if (Array.isArray(items)) {
    if (items.length === 0) throw new ValidationError('items must contain at least one item.', 'items');
    checkNumInputs(items.length, 'items');
    if (items.every((item) => typeof item === 'string')) return items;
    if (items.every((item) => Array.isArray(item) && item.every(isTokenId))) return items;
  }
  throw new ValidationError(
    'items must be a list of strings or a list of lists of token ids, ids being integers of at least 0.',
    'items',
  );
}
