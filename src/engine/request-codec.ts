import type { LoRARequest } from '../lora/lora-request.ts';
import { POOLING_TASKS, type PoolingParams } from '../pooling/pooling-params.ts';
import type { RepetitionDetectionParams, SamplingParams, ThinkingBudgetParams } from '../sampling/sampling-params.ts';
import { GRAMMAR_KINDS, type StructuredOutputsParams } from '../sampling/structured-outputs-params.ts';
import type { ByteReader, ByteWriter } from './byte-codec.ts';
import type { EngineCoreRequest } from './messages.ts';

/** The codec's part for requests: EngineCoreRequest and what it is made of. */

export function writeRequest(writer: ByteWriter, request: EngineCoreRequest): void {
  writer.u32(request.handle);
  writer.u32(request.sequenceIndex);
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

export function readRequest(reader: ByteReader): EngineCoreRequest {
  return {
    handle: reader.u32(),
    sequenceIndex: reader.u32(),
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
  writer.bool(params.logprobTokenIds !== null);
  if (params.logprobTokenIds !== null) writer.i32Array(params.logprobTokenIds);
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
    stop: reader.list(() => reader.string()),
    stopTokenIds: reader.i32List(),
    includeStopStrInOutput: reader.bool(),
    logprobs: reader.optionalF64(),
    promptLogprobs: reader.optionalF64(),
    logprobTokenIds: reader.bool() ? reader.i32List() : null,
    logitBias: reader.list(() => [reader.i32(), reader.f64()]),
    allowedTokenIds: reader.bool() ? reader.i32List() : null,
    badWordsTokenIds: reader.list(() => reader.i32List()),
    structuredOutputs: readStructuredOutputs(reader),
    extraArgs: readJson(reader.optionalString()),
    logitsProcessors: reader.list(() => reader.string()),
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
    starts: reader.list(() => reader.i32List()),
    ends: reader.list(() => reader.i32List()),
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
  writer.bool(params.jsonBegins !== undefined);
  if (params.jsonBegins !== undefined) {
    writer.u32(params.jsonBegins.length);
    for (const begin of params.jsonBegins) writer.string(begin);
  }
  writer.bool(params.startsAfter !== null);
  if (params.startsAfter !== null) writer.i32Array(params.startsAfter);
}

function readStructuredOutputs(reader: ByteReader): StructuredOutputsParams | null {
  if (!reader.bool()) return null;
  return {
    kind: GRAMMAR_KINDS[reader.u8()]!,
    text: reader.string(),
    ...(reader.bool() ? { jsonBegins: reader.list(() => reader.string()) } : {}),
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
