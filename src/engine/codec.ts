import type { PoolerOutput } from '../pooling/finish-pooling.ts';
import type { LogprobsTensors } from '../sampling/logprobs-tensors.ts';
import type { FinishReason, RequestFailure } from '../scheduler/finish-reason.ts';
import { ByteReader, type ByteWriter } from './byte-codec.ts';
import type { ClientMessage, CoreMessage, EngineCoreOutput, EngineCoreOutputs, SchedulerStats } from './messages.ts';
import { readRequest, writeRequest } from './request-codec.ts';

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
  return { timestampMs, numStepTokens, stats, outputs: reader.list(() => readOutput(reader)) };
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
  'numDrafts',
  'numDraftTokens',
  'numAcceptedTokens',
  'numSteps',
  'numScheduledTokens',
  'stepMs',
  'hostMs',
  'estimatedFlops',
  'estimatedReadBytes',
  'estimatedWriteBytes',
] as const satisfies readonly (keyof SchedulerStats)[];

function writeStats(writer: ByteWriter, stats: SchedulerStats): void {
  for (const field of STATS_FIELDS) writer.f64(stats[field]);
  writer.u32(stats.acceptedPerPosition.length);
  for (const count of stats.acceptedPerPosition) writer.f64(count);
  for (const list of STATS_LISTS) {
    writer.u32(stats[list].length);
    for (const name of stats[list]) writer.string(name);
  }
}

function readStats(reader: ByteReader): SchedulerStats {
  const fields = STATS_FIELDS.map((field) => [field, reader.f64()]);
  const acceptedPerPosition = reader.list(() => reader.f64());
  const lists = STATS_LISTS.map((list) => [list, reader.list(() => reader.string())]);
  return { ...Object.fromEntries([...fields, ...lists]), acceptedPerPosition } as SchedulerStats;
}

const HAS_LOGPROBS = 1;
const HAS_PROMPT_LOGPROBS = 2;
const HAS_DETAILS = 4;
const HAS_POOLER_OUTPUT = 8;

/** The usual output, one token and nothing else, takes 16 bytes. */
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
