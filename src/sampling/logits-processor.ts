import { ValidationError } from '../errors/validation-error.ts';
import type { SamplingParams } from './sampling-params.ts';

/**
 * A custom logits processor: changes the logits that tokens of requests are drawn from. A plugin registers it; each request brings its parameters in
 * `vllm_xargs` (`params.extraArgs`).
 */
export interface LogitsProcessor {
  /** Members of `vllm_xargs` that it reads. One that no processor reads is refused. Default: none. */
  readonly extraArgs?: readonly string[];
  /** Throws an Error for parameters that are wrong: the request is refused with 400 and the error's message. Called where requests come in. */
  validateParams?(params: SamplingParams): void;
  /**
   * Whether it has something to do for a request; parameters are valid. Others cost nothing. Default: a request that brings one of `extraArgs`;
   * every request where there are none.
   */
  appliesTo?(params: SamplingParams): boolean;
  /** A request has come into a core's batch. One that was preempted comes again, with the output that it had. */
  addRequest(request: BatchedRequest): RequestLogitsProcessor;
}

/** What a processor keeps of one sequence while that is in the batch. */
export interface RequestLogitsProcessor {
  /**
   * Changes float32 logits [vocabSize] of the next token in place; -Infinity rules a token out. Penalties, temperature and the rest follow, and what a
   * grammar or `allowed_token_ids` rules out stays out. The array must not be kept.
   */
  apply(logits: Float32Array): void;
  /** The sequence has left the batch: finished, aborted or preempted. */
  remove?(): void;
}

/** A sequence in the batch. */
export interface BatchedRequest {
  /** For logs. */
  readonly requestId: string;
  readonly params: SamplingParams;
  readonly promptTokenIds: Int32Array;
  /** All output so far; at every `apply` it is up to date. */
  readonly outputTokenIds: readonly number[];
  readonly vocabSize: number;
}

/** The processors there are, in the order in which they were registered and are applied. */
export class LogitsProcessorRegistry {
  private readonly processors = new Map<string, LogitsProcessor>();

  register(name: string, processor: LogitsProcessor): void {
    this.processors.set(name, processor);
  }

  /** Throws Error for a name that is not registered. */
  find(name: string): LogitsProcessor {
    const processor = this.processors.get(name);
    if (processor === undefined) throw new Error(`there is no logits processor ${name}`);
    return processor;
  }

  /**
   * Names of the processors that apply to a request, in order.
   *
   * @throws ValidationError for a member of `vllm_xargs` that no processor reads, and for values that one refuses
   */
  resolve(params: SamplingParams): string[] {
    if (this.processors.size === 0 && params.extraArgs === null) return [];
    const all = [...this.processors];
    const known = new Set(all.flatMap(([, { extraArgs = [] }]) => extraArgs));
    const unknown = Object.keys(params.extraArgs ?? {}).find((arg) => !known.has(arg));
    if (unknown !== undefined) {
      const field = `vllm_xargs.${unknown.slice(0, MAX_SHOWN_NAME)}`;
      throw new ValidationError(`\`${field}\` is not supported by this server: no logits processor reads it.`, field);
    }
    for (const [, processor] of all) validate(processor, params);
    return all.filter(([, processor]) => appliesTo(processor, params)).map(([name]) => name);
  }
}

/** Those of this thread. */
export const logitsProcessors = new LogitsProcessorRegistry();

const MAX_SHOWN_NAME = 100;

function validate(processor: LogitsProcessor, params: SamplingParams): void {
  try {
    processor.validateParams?.(params);
  } catch (error) {
    if (error instanceof ValidationError) throw error;
    throw new ValidationError(error instanceof Error ? error.message : String(error), 'vllm_xargs');
  }
}

function appliesTo(processor: LogitsProcessor, params: SamplingParams): boolean {
  if (processor.appliesTo !== undefined) return processor.appliesTo(params);
  const { extraArgs = [] } = processor;
  return extraArgs.length === 0 || extraArgs.some((arg) => Object.hasOwn(params.extraArgs ?? {}, arg));
}
