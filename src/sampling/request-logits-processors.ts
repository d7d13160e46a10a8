import { logger } from '../logging/logger.ts';
import { type BatchedRequest, logitsProcessors, type RequestLogitsProcessor } from './logits-processor.ts';

const log = logger('sampling');

/** The custom logits processors of one sequence in the batch. What one of them throws is the sequence's `failure` and goes no further. */
export class RequestLogitsProcessors {
  /** Why the sequence can't go on, in words for its client. */
  failure: string | null = null;
  private readonly outputTokenIds: number[];
  private readonly processors: { name: string; processor: RequestLogitsProcessor }[] = [];

  constructor(
    names: readonly string[],
    private readonly request: BatchedRequest,
    registry = logitsProcessors,
  ) {
    this.outputTokenIds = [...request.outputTokenIds];
    const batched = { ...request, outputTokenIds: this.outputTokenIds };
    for (const name of names) {
      this.attempt(name, () => {
        this.processors.push({ name, processor: registry.find(name).addRequest(batched) });
      });
    }
  }

  /** Changes logits [vocabSize] in place; false if that failed, now or before. */
  apply(logits: Float32Array): boolean {
    for (const { name, processor } of this.processors) {
      this.attempt(name, () => {
        processor.apply(logits);
        checkLogits(logits);
      });
    }
    return this.failure === null;
  }

  appendToken(tokenId: number): void {
    this.outputTokenIds.push(tokenId);
  }

  remove(): void {
    for (const { name, processor } of this.processors) this.attempt(name, () => processor.remove?.());
  }

  private attempt(name: string, call: () => void): void {
    if (this.failure !== null) return;
    try {
      call();
    } catch (error) {
      this.failure = `The logits processor ${name} has failed.`;
      const { message, stack } = error instanceof Error ? error : new Error(String(error));
      log.error(`Logits processor ${name} failed on request ${this.request.requestId}: ${message}`, { stack });
    }
  }
}

/** Throws Error for logits that no token can be drawn from. */
function checkLogits(logits: Float32Array): void {
  let best = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id]!;
    if (Number.isNaN(logit)) throw new Error(`it made the logit of token ${id} NaN`);
    if (logit > best) best = logit;
  }
  if (best === Number.NEGATIVE_INFINITY) throw new Error('it ruled out every token');
}
