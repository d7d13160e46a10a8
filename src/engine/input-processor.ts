import type { BaoConfig } from '../config/bao-config.ts';
import type { SamplingParams } from '../sampling/sampling-params.ts';
import { wallClockMs } from './clock.ts';
import { type GenerateRequest, ValidationError } from './engine-client.ts';
import type { EngineCoreRequest } from './messages.ts';

/** Checks a request against the model's limits and makes the core's requests of it, one for each of its n sequences. */
export class InputProcessor {
  private nextHandle = 1;

  constructor(private readonly config: BaoConfig) {}

  /** Throws ValidationError for what the model can't do. */
  process(request: GenerateRequest): EngineCoreRequest[] {
    this.checkPrompt(request.promptTokenIds);
    const { params } = request;
    const room = this.config.model.maxModelLen - request.promptTokenIds.length;
    const common = {
      requestId: request.requestId,
      promptTokenIds: request.promptTokenIds,
      eosTokenIds: this.config.model.eosTokenIds,
      arrivalTimeMs: request.arrivalTimeMs ?? wallClockMs(),
      priority: request.priority ?? 0,
      cacheSalt: request.cacheSalt ?? null,
      lora: request.lora ?? null,
    };
    return Array.from({ length: params.n }, (_, index) => ({
      ...common,
      handle: this.newHandle(),
      samplingParams: paramsOfSequence(params, index, Math.min(params.maxTokens, room)),
    }));
  }

  private newHandle(): number {
    const handle = this.nextHandle;
    this.nextHandle = (this.nextHandle + 1) >>> 0;
    return handle;
  }

  private checkPrompt(ids: Int32Array): void {
    const { maxModelLen, hf } = this.config.model;
    if (ids.length === 0) throw new ValidationError('The decoder prompt cannot be empty', 'prompt');
    if (ids.length >= maxModelLen) {
      throw new ValidationError(
        `This model's maximum context length is ${maxModelLen} tokens. However, your prompt contains ${ids.length} input tokens, which leaves no room for output tokens. Please reduce the length of the input prompt.`,
        'input_tokens',
        ids.length,
      );
    }
    for (const id of ids) {
      if (id < 0 || id >= hf.vocabSize) throw new ValidationError(`Token id ${id} is out of vocabulary`);
    }
  }
}

/** The sequences of a seeded request draw differently, each reproducibly. */
function paramsOfSequence(params: SamplingParams, index: number, maxTokens: number): SamplingParams {
  const seed = params.seed === null ? null : params.seed + index;
  return { ...params, n: 1, seed, maxTokens };
}
