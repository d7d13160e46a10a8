import type { PoolingRequest } from '../../engine/engine-client.ts';
import { ValidationError } from '../../errors/validation-error.ts';
import { type PoolingConfig, supportedPoolingTasks } from '../../pooling/pooling-config.ts';
import { POOLING_TASKS, type PoolingParams, type PoolingTask } from '../../pooling/pooling-params.ts';
import { engineRequestId, logPooling, placement } from '../generation/generation.ts';
import { checkTextLength, promptFromIds, renderChatPrompt } from '../generation/prompt.ts';
import type { PoolingFields, PoolingInput, PoolingText } from '../protocol/pooling-fields.ts';
import { chooseRequestId } from '../request-id.ts';
import { resolveModel } from '../served-models.ts';
import type { ServerContext } from '../server-context.ts';
import { cutIds, encodeText, type TextLimits } from './text-limits.ts';

/** What preparing a request needs of the server. */
export type PoolingContext = Pick<ServerContext, 'engine' | 'config'>;

/** A request of the API that is pooled, beside what it is about. */
export type PoolingOrigin = Pick<
  PoolingFields,
  'model' | 'truncate_prompt_tokens' | 'truncation_side' | 'request_id' | 'priority' | 'cache_salt' | 'use_activation'
>;

/** What an answer begins with. */
export interface PoolingHead {
  id: string;
  /** Seconds since the epoch. */
  created: number;
  model: string;
}

/** A prompt that is ready for the engine. */
export interface PoolingPrompt {
  ids: Int32Array;
  /** See PoolingParams. */
  firstTypeOne: number | null;
  /** For the log; null for ids. */
  text: string | null;
}

/** How the model is pooled. Throws ValidationError for one that generates. */
export function poolingConfigOf({ config }: PoolingContext): PoolingConfig {
  const { pooling } = config.model;
  if (pooling === null) {
    throw new ValidationError('This model is run to generate; pooling needs --runner pooling.');
  }
  return pooling;
}

/** How long a prompt may be and how it is cut. Throws ValidationError for a length that no prompt can have. */
export function textLimits({ engine, config }: PoolingContext, origin: PoolingOrigin): TextLimits {
  const { maxModelLen } = config.model;
  const truncate = origin.truncate_prompt_tokens ?? null;
  if (truncate !== null && !(Number.isInteger(truncate) && truncate >= -1)) {
    throw new ValidationError(`truncate_prompt_tokens must be an integer of at least -1, not ${truncate}.`);
  }
  if (truncate !== null && truncate > maxModelLen) {
    throw new ValidationError(
      `truncate_prompt_tokens=${truncate} cannot be greater than max_model_len=${maxModelLen}. Please request a smaller truncation size.`,
      'truncate_prompt_tokens',
      truncate,
    );
  }
  return {
    maxModelLen,
    keep: truncate === -1 ? maxModelLen : truncate,
    side: origin.truncation_side ?? engine.tokenizer?.truncationSide ?? 'right',
  };
}

/** The prompts of texts or of conversations. Throws ValidationError. */
export async function preparePrompts(
  context: PoolingContext,
  input: PoolingInput,
  origin: PoolingOrigin,
): Promise<PoolingPrompt[]> {
  const limits = textLimits(context, origin);
  if (input.kind === 'texts') {
    return Promise.all(input.texts.map((text) => preparePrompt(context, text, input.addSpecialTokens, limits)));
  }
  return Promise.all(
    input.chats.map((chat) => {
      const text = renderChatPrompt(context.engine, chat);
      return preparePrompt(context, text, chat.add_special_tokens, limits);
    }),
  );
}

/** A text as the model was trained to read it. */
export function textOf(context: PoolingContext, text: string): string {
  return poolingConfigOf(context).lowerCases ? text.toLowerCase() : text;
}

/** The prompt of one text or its ids. Throws ValidationError. */
export async function preparePrompt(
  context: PoolingContext,
  input: PoolingText,
  addSpecialTokens: boolean,
  limits: TextLimits,
): Promise<PoolingPrompt> {
  const { engine, config } = context;
  const fits = { maxModelLen: limits.maxModelLen, maxOutputTokens: 0, maxOutputField: 'max_tokens' } as const;
  const whole = { ...fits, truncate: null, truncationSide: limits.side };
  if (typeof input !== 'string') {
    const ids = cutIds(Int32Array.from(input), limits);
    return { ids: promptFromIds([...ids], config.model.hf.vocabSize, whole), firstTypeOne: null, text: null };
  }
  const text = textOf(context, input);
  if (limits.keep === null && engine.tokenizer !== null) checkTextLength(text, engine.tokenizer, whole);
  const ids = await encodeText(engine, text, addSpecialTokens, limits);
  return { ids: promptFromIds([...ids], config.model.hf.vocabSize, whole), firstTypeOne: null, text };
}

/** Makes the engine's requests, one a prompt. Throws ValidationError. */
export function poolingRequests(
  context: ServerContext,
  prompts: readonly PoolingPrompt[],
  params: Omit<PoolingParams, 'firstTypeOne'>,
  origin: PoolingOrigin,
  source: { headers: Headers; id: string },
): PoolingRequest[] {
  const { lora } = resolveModel(context, origin.model);
  const place = placement(context, origin, source.headers, lora);
  return prompts.map(({ ids, firstTypeOne, text }) => {
    const pooling = { ...params, firstTypeOne };
    const request = { requestId: engineRequestId(source.id), promptTokenIds: ids, pooling, ...place };
    logPooling(context, request, text);
    return request;
  });
}

/** The parameters of a task. Throws ValidationError for a task or a length that the model doesn't do. */
export function poolingParams(
  context: PoolingContext,
  task: PoolingTask,
  origin: PoolingOrigin,
  dimensions: number | null = null,
): Omit<PoolingParams, 'firstTypeOne'> {
  const config = poolingConfigOf(context);
  if (!supportedPoolingTasks(config).includes(task)) throw unsupportedTask(task, config);
  const wanted = dimensions ?? config.dimensions;
  if (wanted !== null) checkDimensions(context, wanted);
  return { task, dimensions: wanted, useActivation: origin.use_activation ?? config.useActivation };
}

/** The task that a request names, by default the server's. Throws ValidationError for one that is unknown or that the model doesn't do. */
export function chooseTask(context: PoolingContext, name: string | null | undefined): PoolingTask {
  const config = poolingConfigOf(context);
  if (name == null) return config.task;
  const supported = supportedPoolingTasks(config);
  const task = POOLING_TASKS.find((known) => known === name);
  if (task !== undefined && supported.includes(task)) return task;
  throw unsupportedTask(name, config);
}

function unsupportedTask(name: string, config: PoolingConfig): ValidationError {
  const supported = supportedPoolingTasks(config).join(', ');
  return new ValidationError(`Unsupported task: '${name}' Supported tasks: ${supported}`, 'task', name);
}

/** Id, time and model name of an answer. Throws ApiError 404 for an unknown model. */
export function poolingHead(
  context: ServerContext,
  prefix: string,
  origin: PoolingOrigin,
  headers: Headers,
  requestId: string,
): PoolingHead {
  return {
    id: `${prefix}-${chooseRequestId(headers.get('X-Request-Id'), origin.request_id, requestId)}`,
    created: Math.floor(Date.now() / 1000),
    model: resolveModel(context, origin.model).name,
  };
}

function checkDimensions(context: PoolingContext, dimensions: number): void {
  const { matryoshka, dense } = poolingConfigOf(context);
  const { hf, servedModelName } = context.config.model;
  const model = `Model "${servedModelName[0]}"`;
  if (matryoshka === null) {
    throw new ValidationError(
      `${model} does not support matryoshka representation, changing output dimensions will lead to poor results.`,
      'dimensions',
      dimensions,
    );
  }
  if (matryoshka.dimensions !== null && !matryoshka.dimensions.includes(dimensions)) {
    throw new ValidationError(
      `${model} only supports [${matryoshka.dimensions.join(', ')}] matryoshka dimensions, use other output dimensions will lead to poor results.`,
      'dimensions',
      dimensions,
    );
  }
  const size = dense.at(-1)?.outFeatures ?? hf.hiddenSize;
  if (dimensions < 1 || dimensions > size) {
    throw new ValidationError(
      `Dimensions must be greater than 0 and at most ${size}, not ${dimensions}.`,
      'dimensions',
      dimensions,
    );
  }
}
