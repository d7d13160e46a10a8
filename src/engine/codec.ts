import type { LoRARequest } from '../lora/lora-request.ts';
import type { PoolerOutput } from '../pooling/finish-pooling.ts';
import { POOLING_TASKS, type PoolingParams } from '../pooling/pooling-params.ts';
import type { RepetitionDetectionParams, SamplingParams, ThinkingBudgetParams } from '../sampling/sampling-params.ts';
import { GRAMMAR_KINDS, type StructuredOutputsParams } from '../structured-output/grammar.ts';
import { ByteReader, type ByteWriter } from './byte-codec.ts';
import type {
  ClientMessage,
  CoreMessage,
  EngineCoreOutput,
  EngineCoreOutputs,
  EngineCoreRequest,
  FinishReason,
  LogprobsTensors,
  RequestFailure,
  SchedulerStats,
} from './messages.ts';

/** The one codec of everything that crosses a Worker boundary: `messages.ts` in binary, little-endian, first byte the kind. */

const ADD = 1;
const ABORT = 2;
const UTILITY = 3;
const OUTPUTS = 4;
const UTILITY_RESULT = 5;

/** Bytes of a message; valid until the writer's next use. */
export function encodeClientMessage(message: ClientMessage, writer: ByteWriter): Uint8Array {
  writer.reset();
  switch (message.type) {
    case 'add':
      writer.u8(ADD);
      writeRequest(writer, message.request);
      break;
    case 'abort':
      writer.u8(ABORT);
      writer.i32Array(message.abort.handles);
      break;
    case 'utility':
      writer.u8(UTILITY);
      writer.u32(message.call.callId);
      writer.string(message.call.method);
      writer.string(message.call.argsJson);
      break;
  }
  return writer.finish();
}

export function decodeClientMessage(bytes: Uint8Array): ClientMessage {
  const reader = new ByteReader(bytes);
  const kind = reader.u8();
  switch (kind) {
    case ADD:
      return { type: 'add', request: readRequest(reader) };
    case ABORT:
      return { type: 'abort', abort: { handles: reader.i32List().map((handle) => handle >>> 0) } };
    case UTILITY:
      return { type: 'utility', call: { callId: reader.u32(), method: reader.string(), argsJson: reader.string() } };
    default:
      throw new Error(`Unknown kind of client message: ${kind}`);
  }
}

export function encodeCoreMessage(message: CoreMessage, writer: ByteWriter): Uint8Array {
  writer.reset();
  if (message.type === 'outputs') {
    writer.u8(OUTPUTS);
    writeOutputs(writer, message.outputs);
  } else {
    writer.u8(UTILITY_RESULT);
    writer.u32(message.result.callId);
    writer.optionalString(message.result.error);
    writer.string(message.result.resultJson);
  }
  return writer.finish();
}

export function decodeCoreMessage(bytes: Uint8Array): CoreMessage {
  const reader = new ByteReader(bytes);
  const kind = reader.u8();
  switch (kind) {
    case OUTPUTS:
      return { type: 'outputs', outputs: readOutputs(reader) };
    case UTILITY_RESULT:
      return {
        type: 'utility-result',
        result: { callId: reader.u32(), error: reader.optionalString(), resultJson: reader.string() },
      };
    default:
      throw new Error(`Unknown kind of core message: ${kind}`);
  }
}

function writeRequest(writer: ByteWriter, request: EngineCoreRequest): void {
  writer.u32(request.handle);
  writer.string(request.requestId);
  writer.i32Array(request.promptTokenIds);
  writeSamplingParams(writer, request.samplingParams);
  writePoolingParams(writer, request.poolingParams);
  writer.i32Array(request.eosTokenIds);
  writer.f64(request.arrivalTimeMs);
  writer.f64(request.priority);
  writer.optionalString(request.cacheSalt);
  writeLora(writer, request.lora);
}

function readRequest(reader: ByteReader): EngineCoreRequest {
  return {
    handle: reader.u32(),
    requestId: reader.string(),
    promptTokenIds: reader.i32Array(),
    samplingParams: readSamplingParams(reader),
    poolingParams: readPoolingParams(reader),
    eosTokenIds: reader.i32List(),
    arrivalTimeMs: reader.f64(),
    priority: reader.f64(),
    cacheSalt: reader.optionalString(),
    lora: readLora(reader),
  };
}

function writeLora(writer: ByteWriter, lora: LoRARequest | null): void {
  writer.bool(lora !== null);
  if (lora === null) return;
  writer.u32(lora.id);
  writer.string(lora.name);
  writer.string(lora.path);
}

function readLora(reader: ByteReader): LoRARequest | null {
  if (!reader.bool()) return null;
  return { id: reader.u32(), name: reader.string(), path: reader.string() };
}

const OUTPUT_KINDS = ['cumulative', 'delta', 'final-only'] as const;

function writeSamplingParams(writer: ByteWriter, params: SamplingParams): void {
  writer.u32(params.n);
  writer.f64(params.temperature);
  writer.f64(params.topP);
  writer.i32(params.topK);
  writer.f64(params.minP);
  writer.f64(params.repetitionPenalty);
  writer.f64(params.presencePenalty);
  writer.f64(params.frequencyPenalty);
  writer.optionalF64(params.seed);
  writer.u32(params.maxTokens);
  writer.u32(params.minTokens);
  writer.bool(params.ignoreEos);
  writer.u32(params.stop.length);
  for (const stop of params.stop) writer.string(stop);
  writer.i32Array(params.stopTokenIds);
  writer.bool(params.includeStopStrInOutput);
  writer.optionalF64(params.logprobs);
  writer.optionalF64(params.promptLogprobs);
  writer.u32(params.logitBias.length);
  for (const [id, bias] of params.logitBias) {
    writer.i32(id);
    writer.f64(bias);
  }
  writer.bool(params.allowedTokenIds !== null);
  if (params.allowedTokenIds !== null) writer.i32Array(params.allowedTokenIds);
  writer.u32(params.badWordsTokenIds.length);
  for (const ids of params.badWordsTokenIds) writer.i32Array(ids);
  writeStructuredOutputs(writer, params.structuredOutputs);
  writer.optionalString(params.extraArgs === null ? null : JSON.stringify(params.extraArgs));
  writer.u32(params.logitsProcessors.length);
  for (const name of params.logitsProcessors) writer.string(name);
  writeThinkingBudget(writer, params.thinkingBudget);
  writeRepetitionDetection(writer, params.repetitionDetection);
  writer.bool(params.skipSpecialTokens);
  writer.bool(params.spacesBetweenSpecialTokens);
  writer.bool(params.detokenize);
  writer.u8(OUTPUT_KINDS.indexOf(params.outputKind));
}

function readSamplingParams(reader: ByteReader): SamplingParams {
  return {
    n: reader.u32(),
    temperature: reader.f64(),
    topP: reader.f64(),
    topK: reader.i32(),
    minP: reader.f64(),
    repetitionPenalty: reader.f64(),
    presencePenalty: reader.f64(),
    frequencyPenalty: reader.f64(),
    seed: reader.optionalF64(),
    maxTokens: reader.u32(),
    minTokens: reader.u32(),
    ignoreEos: reader.bool(),
    stop: readList(reader, () => reader.string()),
    stopTokenIds: reader.i32List(),
    includeStopStrInOutput: reader.bool(),
    logprobs: reader.optionalF64(),
    promptLogprobs: reader.optionalF64(),
    logitBias: readList(reader, () => [reader.i32(), reader.f64()]),
    allowedTokenIds: reader.bool() ? reader.i32List() : null,
    badWordsTokenIds: readList(reader, () => reader.i32List()),
    structuredOutputs: readStructuredOutputs(reader),
    extraArgs: readJson(reader.optionalString()),
    logitsProcessors: readList(reader, () => reader.string()),
    thinkingBudget: readThinkingBudget(reader),
    repetitionDetection: readRepetitionDetection(reader),
    skipSpecialTokens: reader.bool(),
    spacesBetweenSpecialTokens: reader.bool(),
    detokenize: reader.bool(),
    outputKind: OUTPUT_KINDS[reader.u8()]!,
  };
}

function readJson(json: string | null): Record<string, unknown> | null {
  return json === null ? null : (JSON.parse(json) as Record<string, unknown>);
}

function writeThinkingBudget(writer: ByteWriter, budget: ThinkingBudgetParams | null): void {
  writer.bool(budget !== null);
  if (budget === null) return;
  writer.f64(budget.maxTokens);
  writer.bool(budget.startsInside);
  writer.u32(budget.numUsed);
  for (const marks of [budget.starts, budget.ends]) {
    writer.u32(marks.length);
    for (const mark of marks) writer.i32Array(mark);
  }
}

function readThinkingBudget(reader: ByteReader): ThinkingBudgetParams | null {
  if (!reader.bool()) return null;
  return {
    maxTokens: reader.f64(),
    startsInside: reader.bool(),
    numUsed: reader.u32(),
    starts: readList(reader, () => reader.i32List()),
    ends: readList(reader, () => reader.i32List()),
  };
}

function writeRepetitionDetection(writer: ByteWriter, params: RepetitionDetectionParams | null): void {
  writer.bool(params !== null);
  if (params === null) return;
  writer.u32(params.maxPatternSize);
  writer.u32(params.minPatternSize);
  writer.f64(params.minCount);
}

function readRepetitionDetection(reader: ByteReader): RepetitionDetectionParams | null {
  if (!reader.bool()) return null;
  return { maxPatternSize: reader.u32(), minPatternSize: reader.u32(), minCount: reader.f64() };
}

function writeStructuredOutputs(writer: ByteWriter, params: StructuredOutputsParams | null): void {
  writer.bool(params !== null);
  if (params === null) return;
  writer.u8(GRAMMAR_KINDS.indexOf(params.kind));
  writer.string(params.text);
  writer.bool(params.startsAfter !== null);
  if (params.startsAfter !== null) writer.i32Array(params.startsAfter);
}

function readStructuredOutputs(reader: ByteReader): StructuredOutputsParams | null {
  if (!reader.bool()) return null;
  return {
    kind: GRAMMAR_KINDS[reader.u8()]!,
    text: reader.string(),
    startsAfter: reader.bool() ? reader.i32List() : null,
  };
}

function writePoolingParams(writer: ByteWriter, params: PoolingParams | null): void {
  writer.bool(params !== null);
  if (params === null) return;
  writer.u8(POOLING_TASKS.indexOf(params.task));
  writer.optionalF64(params.dimensions);
  writer.bool(params.useActivation);
  writer.optionalF64(params.firstTypeOne);
}

function readPoolingParams(reader: ByteReader): PoolingParams | null {
  if (!reader.bool()) return null;
  return {
    task: POOLING_TASKS[reader.u8()]!,
    dimensions: reader.optionalF64(),
    useActivation: reader.bool(),
    firstTypeOne: reader.optionalF64(),
  };
}

function readList<T>(reader: ByteReader, readItem: () => T): T[] {
  const length = reader.u32();
  const list: T[] = [];
  for (let i = 0; i < length; i++) list.push(readItem());
  return list;
}

const FINISH_REASONS: readonly (FinishReason | null)[] = [null, 'stop', 'length', 'abort', 'error', 'repetition'];

function writeOutputs(writer: ByteWriter, outputs: EngineCoreOutputs): void {
  writer.f64(outputs.timestampMs);
  writer.u32(outputs.numStepTokens);
  writer.bool(outputs.stats !== null);
  if (outputs.stats !== null) writeStats(writer, outputs.stats);
  writer.u32(outputs.outputs.length);
  for (const output of outputs.outputs) writeOutput(writer, output);
}

function readOutputs(reader: ByteReader): EngineCoreOutputs {
  const timestampMs = reader.f64();
  const numStepTokens = reader.u32();
  const stats = reader.bool() ? readStats(reader) : null;
  return { timestampMs, numStepTokens, stats, outputs: readList(reader, () => readOutput(reader)) };
}

/** `satisfies` and the round-trip test keep these lists complete. */
const STATS_LISTS = ['runningLoraAdapters', 'waitingLoraAdapters'] as const satisfies readonly (keyof SchedulerStats)[];
const STATS_FIELDS = [
  'numRunning',
  'numWaiting',
  'numDeferred',
  'sleepLevel',
  'kvCacheUsage',
  'prefixCacheQueries',
  'prefixCacheHits',
  'numPreemptions',
  'numSteps',
  'numScheduledTokens',
  'stepMs',
  'hostMs',
] as const satisfies readonly (keyof SchedulerStats)[];

function writeStats(writer: ByteWriter, stats: SchedulerStats): void {
  for (const field of STATS_FIELDS) writer.f64(stats[field]);
  for (const list of STATS_LISTS) {
    writer.u32(stats[list].length);
    for (const name of stats[list]) writer.string(name);
  }
}

function readStats(reader: ByteReader): SchedulerStats {
  const fields = STATS_FIELDS.map((field) => [field, reader.f64()]);
  const lists = STATS_LISTS.map((list) => [list, readList(reader, () => reader.string())]);
  return Object.fromEntries([...fields, ...lists]) as SchedulerStats;
}

const HAS_LOGPROBS = 1;
const HAS_PROMPT_LOGPROBS = 2;
const HAS_DETAILS = 4;
const HAS_POOLER_OUTPUT = 8;

/** The usual output, one token and nothing else, takes 15 bytes. */
function writeOutput(writer: ByteWriter, output: EngineCoreOutput): void {
  const hasDetails =
    output.finishReason !== null ||
    output.stopReason !== null ||
    output.numCachedTokens > 0 ||
    output.firstScheduledMs > 0 ||
    output.numPreemptions > 0 ||
    output.failure !== null;
  writer.u32(output.handle);
  writer.u8(
    (output.newLogprobs ? HAS_LOGPROBS : 0) |
      (output.newPromptLogprobs ? HAS_PROMPT_LOGPROBS : 0) |
      (hasDetails ? HAS_DETAILS : 0) |
      (output.poolerOutput ? HAS_POOLER_OUTPUT : 0),
  );
  writer.i32Array(output.newTokenIds);
  if (output.newLogprobs) writeLogprobs(writer, output.newLogprobs);
  if (output.newPromptLogprobs) writeLogprobs(writer, output.newPromptLogprobs);
  if (output.poolerOutput) writePoolerOutput(writer, output.poolerOutput);
  if (hasDetails) {
    writer.u8(FINISH_REASONS.indexOf(output.finishReason));
    writer.optionalF64(output.stopReason);
    writer.u32(output.numCachedTokens);
    writer.f64(output.firstScheduledMs);
    writer.u32(output.numPreemptions);
    writeFailure(writer, output.failure);
  }
}

function writeFailure(writer: ByteWriter, failure: RequestFailure | null): void {
  writer.bool(failure !== null);
  if (failure === null) return;
  writer.u8(FAULTS.indexOf(failure.fault));
  writer.string(failure.message);
}

function readFailure(reader: ByteReader): RequestFailure | null {
  return reader.bool() ? { fault: FAULTS[reader.u8()]!, message: reader.string() } : null;
}

const FAULTS = ['client', 'server'] as const;

function readOutput(reader: ByteReader): EngineCoreOutput {
  const handle = reader.u32();
  const flags = reader.u8();
  const newTokenIds = reader.i32List();
  const newLogprobs = flags & HAS_LOGPROBS ? readLogprobs(reader) : null;
  const newPromptLogprobs = flags & HAS_PROMPT_LOGPROBS ? readLogprobs(reader) : null;
  const poolerOutput = flags & HAS_POOLER_OUTPUT ? readPoolerOutput(reader) : null;
  if (!(flags & HAS_DETAILS)) {
    return {
      handle,
      newTokenIds,
      newLogprobs,
      newPromptLogprobs,
      poolerOutput,
      finishReason: null,
      stopReason: null,
      numCachedTokens: 0,
      firstScheduledMs: 0,
      numPreemptions: 0,
      failure: null,
    };
  }
  return {
    handle,
    newTokenIds,
    newLogprobs,
    newPromptLogprobs,
    poolerOutput,
    finishReason: FINISH_REASONS[reader.u8()] ?? null,
    stopReason: reader.optionalF64(),
    numCachedTokens: reader.u32(),
    firstScheduledMs: reader.f64(),
    numPreemptions: reader.u32(),
    failure: readFailure(reader),
  };
}

function writeLogprobs(writer: ByteWriter, tensors: LogprobsTensors): void {
  writer.u32(tensors.numPositions);
  writer.u32(tensors.width);
  writer.i32Array(tensors.tokenIds);
  writer.f32Array(tensors.logprobs);
  writer.i32Array(tensors.ranks);
}

function readLogprobs(reader: ByteReader): LogprobsTensors {
  return {
    numPositions: reader.u32(),
    width: reader.u32(),
    tokenIds: reader.i32Array(),
    logprobs: reader.f32Array(),
    ranks: reader.i32Array(),
  };
}

function writePoolerOutput(writer: ByteWriter, output: PoolerOutput): void {
  writer.bool(output.isTokenwise);
  writer.u32(output.numRows);
  writer.u32(output.width);
  writer.f32Array(output.values);
}

function readPoolerOutput(reader: ByteReader): PoolerOutput {
  return { isTokenwise: reader.bool(), numRows: reader.u32(), width: reader.u32(), values: reader.f32Array() };
}
