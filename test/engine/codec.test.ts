import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { ByteWriter } from '../../src/engine/byte-codec.ts';
import {
  decodeClientMessage,
  decodeCoreMessage,
  encodeClientMessage,
  encodeCoreMessage,
} from '../../src/engine/codec.ts';
import type { ClientMessage, CoreMessage, EngineCoreOutput } from '../../src/engine/messages.ts';
import type { PoolerOutput } from '../../src/pooling/finish-pooling.ts';
import { POOLING_TASKS, type PoolingParams } from '../../src/pooling/pooling-params.ts';
import type { LogprobsTensors } from '../../src/sampling/logprobs-tensors.ts';
import { GRAMMAR_KINDS } from '../../src/sampling/structured-outputs-params.ts';

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const i32 = fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff });
const f64 = fc.double({ noNaN: true }).filter((value) => !Object.is(value, -0));
/** A byte order mark is a character like others. */
const text = fc.oneof(
  { weight: 9, arbitrary: fc.string({ unit: 'grapheme' }) },
  { weight: 1, arbitrary: fc.string().map((rest) => `\uFEFF${rest}`) },
);
const tokenIds = fc.array(fc.integer({ min: 0, max: 0x7fff_ffff }), { maxLength: 20 });
const nullable = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: null });

const samplingParams = fc.record({
  n: u32,
  temperature: f64,
  topP: f64,
  topK: i32,
  minP: f64,
  repetitionPenalty: f64,
  presencePenalty: f64,
  frequencyPenalty: f64,
  seed: nullable(f64),
  maxTokens: u32,
  minTokens: u32,
  ignoreEos: fc.boolean(),
  stop: fc.array(text),
  stopTokenIds: tokenIds,
  includeStopStrInOutput: fc.boolean(),
  logprobs: nullable(i32),
  promptLogprobs: nullable(i32),
  logprobTokenIds: nullable(fc.array(i32)),
  logitBias: fc.array(fc.tuple(i32, f64)),
  allowedTokenIds: nullable(tokenIds),
  badWordsTokenIds: fc.array(tokenIds),
  structuredOutputs: nullable(
    fc.record(
      {
        kind: fc.constantFrom(...GRAMMAR_KINDS),
        text,
        jsonBegins: fc.array(text),
        startsAfter: nullable(tokenIds),
      },
      { requiredKeys: ['kind', 'text', 'startsAfter'] },
    ),
  ),
  extraArgs: nullable(
    fc
      .dictionary(fc.string(), fc.jsonValue())
      .map((args) => JSON.parse(JSON.stringify(args)) as Record<string, unknown>),
  ),
  logitsProcessors: fc.array(text),
  thinkingBudget: nullable(
    fc.record({
      ...{ maxTokens: f64, startsInside: fc.boolean(), numUsed: u32 },
      ...{ starts: fc.array(tokenIds), ends: fc.array(tokenIds) },
    }),
  ),
  repetitionDetection: nullable(fc.record({ maxPatternSize: u32, minPatternSize: u32, minCount: f64 })),
  skipSpecialTokens: fc.boolean(),
  spacesBetweenSpecialTokens: fc.boolean(),
  detokenize: fc.boolean(),
  outputKind: fc.constantFrom('cumulative' as const, 'delta' as const, 'final-only' as const),
});

const poolingParams: fc.Arbitrary<PoolingParams> = fc.record({
  task: fc.constantFrom(...POOLING_TASKS),
  dimensions: nullable(u32),
  useActivation: fc.boolean(),
  firstTypeOne: nullable(u32),
});

const clientMessage: fc.Arbitrary<ClientMessage> = fc.oneof(
  fc.record({
    type: fc.constant('add' as const),
    request: fc.record({
      handle: u32,
      sequenceIndex: u32,
      requestId: text,
      promptTokenIds: tokenIds.map((ids) => Int32Array.from(ids)),
      samplingParams,
      poolingParams: nullable(poolingParams),
      eosTokenIds: tokenIds,
      arrivalTimeMs: f64,
      priority: f64,
      cacheSalt: nullable(text),
      lora: nullable(fc.record({ id: u32, name: text, path: text })),
    }),
  }),
  fc.record({ type: fc.constant('abort' as const), abort: fc.record({ handles: fc.array(u32) }) }),
  fc.record({
    type: fc.constant('utility' as const),
    call: fc.record({ callId: u32, method: text, argsJson: text }),
  }),
);

const logprobs: fc.Arbitrary<LogprobsTensors> = fc
  .tuple(fc.integer({ min: 0, max: 4 }), fc.integer({ min: 1, max: 5 }))
  .map(([numPositions, width]) => ({
    numPositions,
    width,
    tokenIds: Int32Array.from({ length: numPositions * width }, (_, i) => i * 7),
    logprobs: Float32Array.from({ length: numPositions * width }, (_, i) => -i / 3),
    ranks: Int32Array.from({ length: numPositions }, (_, i) => i + 1),
  }));

const poolerOutput: fc.Arbitrary<PoolerOutput> = fc
  .tuple(fc.integer({ min: 0, max: 3 }), fc.integer({ min: 1, max: 5 }))
  .map(([numRows, width]) => ({
    isTokenwise: numRows > 1,
    numRows,
    width,
    values: Float32Array.from({ length: numRows * width }, (_, i) => i / 7 - 1),
  }));

const output: fc.Arbitrary<EngineCoreOutput> = fc.record({
  handle: u32,
  newTokenIds: tokenIds,
  newLogprobs: nullable(logprobs),
  newPromptLogprobs: nullable(logprobs),
  poolerOutput: nullable(poolerOutput),
  finishReason: nullable(
    fc.constantFrom('stop' as const, 'length' as const, 'abort' as const, 'error' as const, 'repetition' as const),
  ),
  stopReason: nullable(i32),
  numCachedTokens: u32,
  firstScheduledMs: fc.double({ min: 0, max: 1e15, noNaN: true }),
  numPreemptions: u32,
  failure: nullable(fc.record({ fault: fc.constantFrom('client' as const, 'server' as const), message: text })),
});

const stats = fc.record({
  numRunning: f64,
  numWaiting: f64,
  numDeferred: f64,
  sleepLevel: f64,
  kvCacheUsage: f64,
  prefixCacheQueries: f64,
  prefixCacheHits: f64,
  numPreemptions: f64,
  numDrafts: f64,
  numDraftTokens: f64,
  numAcceptedTokens: f64,
  acceptedPerPosition: fc.array(f64),
  runningLoraAdapters: fc.array(text),
  waitingLoraAdapters: fc.array(text),
  numSteps: f64,
  numScheduledTokens: f64,
  stepMs: f64,
  hostMs: f64,
  estimatedFlops: f64,
  estimatedReadBytes: f64,
  estimatedWriteBytes: f64,
});

const coreMessage: fc.Arbitrary<CoreMessage> = fc.oneof(
  fc.record({
    type: fc.constant('outputs' as const),
    outputs: fc.record({ timestampMs: f64, numStepTokens: u32, stats: nullable(stats), outputs: fc.array(output) }),
  }),
  fc.record({
    type: fc.constant('utility-result' as const),
    result: fc.record({ callId: u32, error: nullable(text), resultJson: text }),
  }),
);

describe('codec', () => {
  test('every client message survives the round trip', () => {
    const writer = new ByteWriter();
    fc.assert(
      fc.property(clientMessage, (message) => {
        expect(decodeClientMessage(encodeClientMessage(message, writer).slice())).toEqual(message);
      }),
    );
  });

  test('every core message survives the round trip', () => {
    const writer = new ByteWriter();
    fc.assert(
      fc.property(coreMessage, (message) => {
        expect(decodeCoreMessage(encodeCoreMessage(message, writer).slice())).toEqual(message);
      }),
    );
  });

  test('the usual output, one token and nothing else, takes 16 bytes', () => {
    const output = {
      ...{ newTokenIds: [5], newLogprobs: null, newPromptLogprobs: null, poolerOutput: null, failure: null },
      ...{ finishReason: null, stopReason: null, numCachedTokens: 0, firstScheduledMs: 0, numPreemptions: 0 },
    };
    const bytesOf = (numOutputs: number) => {
      const outputs = Array.from({ length: numOutputs }, (_, handle) => ({ ...output, handle }));
      const message = { type: 'outputs', outputs: { timestampMs: 1, numStepTokens: 1, outputs, stats: null } } as const;
      return encodeCoreMessage(message, new ByteWriter()).length;
    };
    expect(bytesOf(5) - bytesOf(1)).toBe(4 * 16);
  });

  test('an unknown kind is named', () => {
    expect(() => decodeClientMessage(Uint8Array.of(99))).toThrow('99');
    expect(() => decodeCoreMessage(Uint8Array.of(99))).toThrow('99');
  });
});

test.each([5001, 5002, 5003, 20_001])(
  'lists come behind %p bytes of text, for which the writer has grown',
  (length) => {
    const call = { callId: 1, method: 'x'.repeat(length), argsJson: '' };
    const writer = new ByteWriter();
    expect(decodeClientMessage(encodeClientMessage({ type: 'utility', call }, writer))).toEqual({
      type: 'utility',
      call,
    });
    const abort = { handles: Array.from({ length: 9000 }, (_, i) => i) };
    expect(decodeClientMessage(encodeClientMessage({ type: 'abort', abort }, writer))).toEqual({
      type: 'abort',
      abort,
    });
  },
);
