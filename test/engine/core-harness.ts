import { EngineCore, type EngineCoreOptions } from '../../src/engine/core/engine-core.ts';
import { ClientConnection, CoreConnection, createCoreLink } from '../../src/engine/core-link.ts';
import { CoreStatus } from '../../src/engine/core-status.ts';
import type { CoreMessage, EngineCoreOutput, EngineCoreRequest } from '../../src/engine/messages.ts';
import type { Executor } from '../../src/executor/executor.ts';
import { ModelWork } from '../../src/layers/model-work.ts';
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../src/sampling/sampling-params.ts';
import { Scheduler } from '../../src/scheduler/scheduler.ts';
import type { SchedulerOutput } from '../../src/scheduler/scheduler-output.ts';
import type { PendingStep } from '../../src/worker/pending-step.ts';
import { kvConfig } from '../scheduler/fixtures.ts';

/** Samples the position it is at: token i of a sequence is i. Remembers the steps that it was given. */
export class CountingExecutor implements Executor {
  readonly steps: SchedulerOutput[] = [];
  maxInFlight = 0;
  inFlight = 0;
  private readonly lengths = new Map<number, number>();

  async initDevice() {}
  async loadModel() {}
  kvCacheSpecs() {
    return new Map();
  }
  modelWork() {
    return new ModelWork(4);
  }
  determineAvailableMemory() {
    return 0;
  }
  initializeFromConfig() {}
  positionOffset(_numPromptTokens: number) {
    return 0;
  }
  addLora() {}
  removeLora() {}
  sleep() {}
  async wakeUp() {}
  shutdown() {}

  execute(scheduled: SchedulerOutput): PendingStep {
    this.steps.push(scheduled);
    this.maxInFlight = Math.max(this.maxInFlight, ++this.inFlight);
    for (const request of scheduled.newRequests) this.lengths.set(request.key, request.tokenIds.length);
    const rows = [...scheduled.cachedRequests, ...scheduled.newRequests];
    const sampled = rows.map((row) => {
      const position = row.numComputedTokens + row.numScheduledTokens;
      const length = this.lengths.get(row.key)!;
      if (position < length) return [];
      this.lengths.set(row.key, length + 1);
      return [position];
    });
    return {
      wait: () => {
        this.inFlight--;
        const none = rows.map(() => null);
        return {
          keys: rows.map((row) => row.key),
          sampledTokenIds: sampled,
          logprobs: none,
          promptLogprobs: none,
          failures: [],
        };
      },
    };
  }
}

interface SetUpOptions extends Partial<EngineCoreOptions> {
  numBlocks?: number;
}

/**
 * A core with two clients that has not been started.
 *
 * @param numBlocks of 16 tokens
 */
export function setUp(maxInFlight: number, { numBlocks = 100, ...options }: SetUpOptions = {}) {
  const status = CoreStatus.create(2);
  const ends = [0, 1].map((client) => createCoreLink(0, client, status));
  const received: EngineCoreOutput[][] = [[], []];
  const messages: CoreMessage[] = [];
  const clients = ends.map(
    ({ client }, i) =>
      new CoreConnection(client, (message) => {
        messages.push(message);
        if (message.type === 'outputs') received[i]!.push(...message.outputs.outputs);
      }),
  );
  const executor = new CountingExecutor();
  const scheduler = new Scheduler(
    {
      maxNumSeqs: 8,
      maxNumBatchedTokens: 64,
      maxModelLen: 256,
      longPrefillTokenThreshold: 0,
      enableChunkedPrefill: true,
      policy: 'fcfs',
      watermark: 0,
      enablePrefixCaching: true,
    },
    kvConfig(numBlocks, 16),
  );
  const connections = ends.map(({ core }) => new ClientConnection(core, status));
  const core = new EngineCore(executor, scheduler, connections, status, { maxInFlight, seed: 0, ...options });
  const shutDown = () =>
    clients[0]!.send({ type: 'utility', call: { callId: 99, method: 'shutdown', argsJson: '[]' } });
  const close = () => {
    for (const end of [...clients, ...connections]) end.close();
  };
  return { core, clients, executor, received, messages, status, scheduler, shutDown, close };
}

export function request(handle: number, promptLength: number, params: Partial<SamplingParams> = {}): EngineCoreRequest {
  return {
    handle,
    sequenceIndex: 0,
    requestId: `r${handle}`,
    promptTokenIds: Int32Array.from({ length: promptLength }, (_, i) => handle * 1000 + i),
    samplingParams: { ...DEFAULT_SAMPLING_PARAMS, ...params },
    poolingParams: null,
    eosTokenIds: [],
    arrivalTimeMs: 0,
    priority: 0,
    cacheSalt: null,
    lora: null,
  };
}

/** Lets the clients' doorbells ring. */
export async function settle(done: () => boolean): Promise<void> {
  while (!done()) await new Promise<void>((resolve) => setImmediate(resolve));
}
