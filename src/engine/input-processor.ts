import type { BaoConfig } from '../config/bao-config.ts';
import { ValidationError } from '../errors/validation-error.ts';
import { POOLING_SAMPLING_PARAMS } from '../pooling/pooling-params.ts';
import type { SamplingParams } from '../sampling/sampling-params.ts';
import { wallClockMs } from './clock.ts';
import type { EngineRequest, GenerateRequest, PoolingRequest } from './engine-client.ts';
import type { EngineCoreRequest } from './messages.ts';

/** Checks a request against the model's limits and makes the core's requests of it, one for each of its n sequences. */
export class InputProcessor {
  private nextHandle = 1;

  constructor(private readonly config: BaoConfig) {}

  /** Throws ValidationError for what the model can't do. */
  process(request: GenerateRequest): EngineCoreRequest[] {
    if (this.config.model.pooling !== null) {
      throw new ValidationError('This model is run for pooling (--runner pooling); it does not generate.');
    }
    this.checkPrompt(request.promptTokenIds, 1);
    const samplingParams = this.paramsOfSequence(request);
    const common = this.commonFields(request);
    const requests: EngineCoreRequest[] = [];
    for (let sequenceIndex = 0; sequenceIndex < request.params.n; sequenceIndex++) {
      requests.push({ ...common, handle: this.newHandle(), sequenceIndex, samplingParams, poolingParams: null });
    }
    return requests;
  }

  /** The same for a request that is pooled. */
  processPooling(request: PoolingRequest): EngineCoreRequest {
    if (this.config.model.pooling === null) {
      throw new ValidationError('This model is run to generate; pooling needs --runner pooling.');
    }
    this.checkPrompt(request.promptTokenIds, 0);
    return {
      ...this.commonFields(request),
      handle: this.newHandle(),
      sequenceIndex: 0,
      samplingParams: POOLING_SAMPLING_PARAMS,
      poolingParams: request.pooling,
    };
  }

  private paramsOfSequence({ params, promptTokenIds }: GenerateRequest): SamplingParams {
    const room = this.config.model.maxModelLen - promptTokenIds.length;
    return params.n === 1 && params.maxTokens <= room
      ? params
      : { ...params, n: 1, maxTokens: Math.min(params.maxTokens, room) };
  }

  private commonFields(request: EngineRequest) {
    return {
      requestId: request.requestId,
      promptTokenIds: request.promptTokenIds,
      eosTokenIds: this.config.model.eosTokenIds,
      arrivalTimeMs: request.arrivalTimeMs ?? wallClockMs(),
      priority: request.priority ?? 0,
      cacheSalt: request.cacheSalt ?? null,
      lora: request.lora ?? null,
    };
  }

  private newHandle(): number {
    const handle = this.nextHandle;
    this.nextHandle = (this.nextHandle + 1) >>> 0;
    return handle;
  }

  /** @param minOutputTokens that must fit behind the prompt */
  private checkPrompt(ids: Int32Array, minOutputTokens: number): void {
    const { maxModelLen, hf } = this.config.model;
    if (ids.length === 0) throw new ValidationError('The decoder prompt cannot be empty', 'prompt');
    if (ids.length + minOutputTokens > maxModelLen) {
      const outcome = minOutputTokens > 0 ? ', which leaves no room for output tokens' : '';
      throw new ValidationError(
        `This model's maximum context length is ${maxModelLen} tokens. However, your prompt contains ${ids.length} input tokens${outcome}. Please reduce the length of the input prompt.`,
        'input_tokens',
        ids.length,
      );
    }
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      if (id < 0 || id >= hf.vocabSize) throw new ValidationError(`Token id ${id} is out of vocabulary`);
    }
  }
}
