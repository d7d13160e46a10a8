import type { RequestOutputKind } from '../sampling/sampling-params.ts';
import type { FinishReason } from '../scheduler/finish-reason.ts';
import { OutputText } from '../tokenizer/output-text.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { wallClockMs } from './clock.ts';
import type {
  CompletionOutput,
  GenerateRequest,
  OutputSink,
  PoolingRequest,
  PoolingSink,
  PositionLogprobs,
  RequestOutput,
} from './engine-client.ts';
import { LogprobsDecoder } from './logprobs-decoder.ts';
import type { EngineCoreOutput, EngineCoreOutputs, EngineCoreRequest } from './messages.ts';
import { type EngineObserver, LatencyRuns, SequenceTimes } from './observer.ts';
import { PoolingOutputs } from './pooling-outputs.ts';

/** A request of the API with its n sequences. */
class ParentRequest {
  numUnfinished: number;
  /** Of the sequences that have ended. */
  maxGenerationTokens = 0;
  numCachedTokens = 0;
  promptLogprobs: PositionLogprobs[] | null = null;
  promptLogprobsSent = false;
  /** Outputs of sequences that have ended, for outputKind 'final-only'. */
  readonly finals: CompletionOutput[] = [];
  /** Of the request's parameters, where each output finds it. */
  readonly outputKind: RequestOutputKind;

  constructor(
    readonly request: GenerateRequest,
    readonly coreIndex: number,
    readonly handles: readonly number[],
    readonly sink: OutputSink,
  ) {
    this.numUnfinished = handles.length;
    this.outputKind = request.params.outputKind;
    if (request.params.promptLogprobs !== null) this.promptLogprobs = [null];
  }
}

/** One sequence on its way from tokens to text. */
class Sequence {
  numTokens = 0;
  /** What has come so far is kept where outputs tell all of it. */
  readonly tokenIds: number[] = [];
  readonly logprobs: PositionLogprobs[] | null;
  text = '';

  constructor(
    readonly parent: ParentRequest,
    readonly index: number,
    readonly outputText: OutputText | null,
    readonly times: SequenceTimes,
  ) {
    this.logprobs = parent.request.params.logprobs === null ? null : [];
  }
}

/** What became of a step's outputs beyond what the sinks were told. */
export interface ProcessedOutputs {
  /** Sequences that ended here (stop string) and not yet in their core: by core index, their handles. */
  toAbort: number[];
}

/** Turns a core's outputs into RequestOutputs: text, stop strings, log probabilities, times. One for each core connection's client. */
export class OutputProcessor {
  private readonly sequences = new Map<number, Sequence>();
  private readonly parents = new Map<string, ParentRequest>();
  private readonly pooling: PoolingOutputs;
  private readonly logprobsDecoder: LogprobsDecoder;
  private readonly latencies: LatencyRuns;

  private numQueuedPromptTokens = 0;

  constructor(
    private readonly tokenizer: Tokenizer | null,
    private readonly observer: EngineObserver,
  ) {
    this.pooling = new PoolingOutputs(observer);
    this.logprobsDecoder = new LogprobsDecoder(tokenizer);
    this.latencies = new LatencyRuns(observer);
  }

  get numUnfinishedRequests(): number {
    return this.parents.size + this.pooling.size;
  }

  /** Prompt tokens of sequences that have no token yet, and of requests that are to be pooled. */
  get numQueuedTokens(): number {
    return this.numQueuedPromptTokens + this.pooling.numQueuedTokens;
  }

  has(requestId: string): boolean {
    return this.parents.has(requestId) || this.pooling.has(requestId);
  }

  add(request: GenerateRequest, coreIndex: number, coreRequests: readonly EngineCoreRequest[], sink: OutputSink): void {
    const handles = coreRequests.map((each) => each.handle);
    const parent = new ParentRequest(request, coreIndex, handles, sink);
    this.parents.set(request.requestId, parent);
    coreRequests.forEach((coreRequest, index) => {
      const { samplingParams: params, promptTokenIds, arrivalTimeMs } = coreRequest;
      const outputText =
        this.tokenizer !== null && params.detokenize ? new OutputText(this.tokenizer, params, promptTokenIds) : null;
      const times = new SequenceTimes(arrivalTimeMs);
      this.sequences.set(coreRequest.handle, new Sequence(parent, index, outputText, times));
      this.numQueuedPromptTokens += promptTokenIds.length;
    });
  }

  addPooling(request: PoolingRequest, coreIndex: number, coreRequest: EngineCoreRequest, sink: PoolingSink): void {
    this.pooling.add(request, coreIndex, coreRequest, sink);
  }

  /** Forgets a request; gives the handles that its core still works on and the core. */
  remove(requestId: string): { coreIndex: number; handles: number[] } | null {
    const pooled = this.pooling.remove(requestId);
    if (pooled !== null) return { coreIndex: pooled.coreIndex, handles: [pooled.handle] };
    const parent = this.parents.get(requestId);
    if (parent === undefined) return null;
    this.parents.delete(requestId);
    const handles = parent.handles.filter((handle) => this.sequences.has(handle));
    for (const handle of handles) {
      this.finishSequence(handle, this.sequences.get(handle)!, 'abort', 0, wallClockMs());
    }
    return { coreIndex: parent.coreIndex, handles };
  }

  /** Every open request gets the error, and is forgotten. */
  failAll(error: Error): void {
    const parents = [...this.parents.values()];
    this.parents.clear();
    this.sequences.clear();
    this.numQueuedPromptTokens = 0;
    for (const parent of parents) parent.sink.onError(error);
    this.pooling.failAll(error);
  }

  process(coreIndex: number, batch: EngineCoreOutputs): ProcessedOutputs {
    const toAbort: number[] = [];
    let numPromptTokens = 0;
    let numGenerationTokens = 0;
    for (const output of batch.outputs) {
      const sequence = this.sequences.get(output.handle);
      if (sequence === undefined) numPromptTokens += this.pooling.process(output, batch.timestampMs);
      // Its client has left, or a stop string ended it; the core hears of that soon.
      if (sequence === undefined) continue;
      if (sequence.times.isFirst && output.newTokenIds.length > 0) {
        numPromptTokens += sequence.parent.request.promptTokenIds.length;
      }
      numGenerationTokens += this.processOutput(coreIndex, sequence, output, batch.timestampMs, toAbort);
    }
    this.latencies.finish(coreIndex);
    this.observer.onStep(coreIndex, { numPromptTokens, numGenerationTokens, numStepTokens: batch.numStepTokens });
    if (batch.stats !== null) this.observer.onStats(coreIndex, batch.stats);
    return { toAbort };
  }

  /** @returns tokens that the client gets: none behind a stop string */
  private processOutput(
    coreIndex: number,
    sequence: Sequence,
    output: EngineCoreOutput,
    nowMs: number,
    toAbort: number[],
  ): number {
    const { parent } = sequence;
    if (output.newTokenIds.length > 0) this.observeTimes(coreIndex, sequence, output, nowMs);
    if (output.newPromptLogprobs !== null && sequence.index === 0) {
      parent.promptLogprobs?.push(...this.logprobsDecoder.decode(output.newPromptLogprobs));
    }

    let { finishReason } = output;
    let stopReason: string | number | null = finishReason === 'repetition' ? 'repetition_detected' : output.stopReason;
    let newText = '';
    let { newTokenIds } = output;
    if (sequence.outputText !== null) {
      const { text, stop, numTokens } = sequence.outputText.push(newTokenIds, finishReason === 'stop');
      newText = text;
      if (stop !== null) {
        if (finishReason === null) toAbort.push(output.handle);
        finishReason = 'stop';
        stopReason = stop;
        if (numTokens < newTokenIds.length) newTokenIds = newTokenIds.slice(0, numTokens);
      } else if (finishReason !== null) {
        newText += sequence.outputText.finish();
      }
    }
    const newLogprobs =
      output.newLogprobs === null ? null : this.logprobsDecoder.decode(output.newLogprobs).slice(0, newTokenIds.length);
    const completion = accumulate(sequence, {
      index: sequence.index,
      text: newText,
      tokenIds: newTokenIds,
      logprobs: newLogprobs,
      finishReason,
      stopReason,
      failure: output.failure,
    });
    if (finishReason !== null) {
      this.finishSequence(output.handle, sequence, finishReason, output.numPreemptions, nowMs);
    }
    this.emit(sequence, completion, newTokenIds.length > 0);
    return newTokenIds.length;
  }

  private observeTimes(coreIndex: number, sequence: Sequence, output: EngineCoreOutput, nowMs: number): void {
    const { times, parent } = sequence;
    if (times.isFirst) {
      parent.numCachedTokens = Math.max(parent.numCachedTokens, output.numCachedTokens);
      times.cachedTokens = output.numCachedTokens;
      times.onFirstToken(output.firstScheduledMs, nowMs);
      this.numQueuedPromptTokens -= parent.request.promptTokenIds.length;
      this.observer.onFirstToken(coreIndex, times);
    } else {
      this.latencies.add(coreIndex, times.onToken(nowMs));
    }
  }

  private finishSequence(
    handle: number,
    sequence: Sequence,
    finishReason: FinishReason,
    numPreemptions: number,
    nowMs: number,
  ): void {
    const { parent, times } = sequence;
    this.sequences.delete(handle);
    if (times.isFirst) this.numQueuedPromptTokens -= parent.request.promptTokenIds.length;
    parent.numUnfinished--;
    parent.maxGenerationTokens = Math.max(parent.maxGenerationTokens, sequence.numTokens);
    if (parent.numUnfinished === 0) this.parents.delete(parent.request.requestId);
    this.observer.onFinished(parent.coreIndex, {
      request: parent.request,
      params: parent.request.params,
      finishReason,
      times,
      finishedMs: nowMs,
      numGenerationTokens: sequence.numTokens,
      maxGenerationTokens: parent.numUnfinished === 0 ? parent.maxGenerationTokens : null,
      numPreemptions,
    });
  }

  private emit(sequence: Sequence, completion: CompletionOutput, hasTokens: boolean): void {
    const { parent } = sequence;
    const finished = parent.numUnfinished === 0;
    let outputs = [completion];
    if (parent.outputKind === 'final-only') {
      if (completion.finishReason !== null) parent.finals.push(completion);
      if (!finished) return;
      outputs = parent.finals.sort((a, b) => a.index - b.index);
    } else if (!hasTokens && completion.finishReason === null) {
      return;
    }
    const promptLogprobs = parent.promptLogprobsSent ? null : parent.promptLogprobs;
    parent.promptLogprobsSent = true;
    const output: RequestOutput = {
      requestId: parent.request.requestId,
      promptTokenIds: parent.request.promptTokenIds,
      promptLogprobs,
      outputs,
      finished,
      numCachedTokens: parent.numCachedTokens,
    };
    parent.sink.onOutput(output);
  }
}

/** Adds the news to the sequence and gives what its output kind tells: the news themselves, or all so far. */
function accumulate(sequence: Sequence, news: CompletionOutput): CompletionOutput {
  sequence.numTokens += news.tokenIds.length;
  if (sequence.parent.outputKind === 'delta') return news;
  for (const id of news.tokenIds) sequence.tokenIds.push(id);
  sequence.text += news.text;
  if (news.logprobs !== null) sequence.logprobs?.push(...news.logprobs);
  const { text, tokenIds, logprobs } = sequence;
  return { ...news, text, tokenIds, logprobs };
}
