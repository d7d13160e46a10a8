import { SEQ_POOLING_TYPES, type SeqPoolingType } from '../pooling/pooling-config.ts';
import { POOLING_TASKS, type PoolingTask } from '../pooling/pooling-params.ts';
import { UsageError } from './config-error.ts';

const FLAG = '--pooler-config';

/** `--pooler-config` as it was given; null: the model decides. */
export interface PoolerFlags {
  task: PoolingTask | null;
  seqPoolingType: SeqPoolingType | null;
  useActivation: boolean | null;
  dimensions: number | null;
  logitMean: number;
  logitSigma: number;
}

/** vLLM's members that ask for what is not there. */
const REFUSED: Readonly<Record<string, string>> = {
  enable_chunked_processing: 'longer texts than the model takes are not split; use truncate_prompt_tokens',
  max_embed_len: 'texts are as long as --max-model-len says',
  step_tag_id: 'step pooling of reward models is not there',
  returned_token_ids: 'step pooling of reward models is not there',
  normalize: 'it is called use_activation',
};

const KNOWN = [
  'task',
  'pooling_type',
  'seq_pooling_type',
  'tok_pooling_type',
  'use_activation',
  'dimensions',
  'logit_mean',
  'logit_sigma',
];

/** Reads `--pooler-config`. Throws UsageError for a member or a value that is not known. */
export function readPoolerConfig(given: Readonly<Record<string, unknown>>): PoolerFlags {
  for (const key of Object.keys(given)) {
    const reason = REFUSED[key];
    if (reason !== undefined) throw new UsageError(`${FLAG}.${key} is not supported: ${reason}.`);
    if (!KNOWN.includes(key)) throw new UsageError(`${FLAG} has no ${key}; it takes ${KNOWN.join(', ')}.`);
  }
  const { pooling_type: type, seq_pooling_type: seqType, tok_pooling_type: tokType, ...rest } = given;
  if (type != null && (seqType != null || tokType != null)) {
    throw new UsageError(`${FLAG} takes pooling_type, or seq_pooling_type and tok_pooling_type, not both.`);
  }
  if (tokType != null) word('tok_pooling_type', tokType, ['ALL']);
  return {
    task: rest.task == null ? null : word('task', rest.task, POOLING_TASKS),
    seqPoolingType: seqPoolingTypeOf(type, seqType),
    useActivation: rest.use_activation == null ? null : boolean('use_activation', rest.use_activation),
    dimensions: rest.dimensions == null ? null : positiveInt('dimensions', rest.dimensions),
    logitMean: rest.logit_mean == null ? 0 : number('logit_mean', rest.logit_mean),
    logitSigma: rest.logit_sigma == null ? 1 : nonZero('logit_sigma', rest.logit_sigma),
  };
}

/** `pooling_type` stands for either; ALL is how tokens are pooled anyway. */
function seqPoolingTypeOf(type: unknown, seqType: unknown): SeqPoolingType | null {
  if (type != null) {
    const chosen = word('pooling_type', type, [...SEQ_POOLING_TYPES, 'ALL'] as const);
    return chosen === 'ALL' ? null : chosen;
  }
  return seqType == null ? null : word('seq_pooling_type', seqType, SEQ_POOLING_TYPES);
}

function word<const Word extends string>(key: string, value: unknown, words: readonly Word[]): Word {
  const text = String(value);
  const known = words.find((each) => each.toLowerCase() === text.toLowerCase());
  if (known !== undefined) return known;
  throw wrong(key, `one of ${words.join(', ')}`, value);
}

function boolean(key: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw wrong(key, 'true or false', value);
}

function number(key: string, value: unknown): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw wrong(key, 'a number', value);
}

function nonZero(key: string, value: unknown): number {
  if (value === 0) throw wrong(key, 'a number other than 0', value);
  return number(key, value);
}

function positiveInt(key: string, value: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
  throw wrong(key, 'a whole number of at least 1', value);
}

function wrong(key: string, expected: string, value: unknown): UsageError {
  return new UsageError(`${FLAG}.${key} must be ${expected}, not ${JSON.stringify(value)}.`);
}
