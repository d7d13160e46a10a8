import type { BaoConfig } from '../../config/bao-config.ts';
import type { Executor } from '../../executor/executor.ts';
import { getExecutorClass } from '../../executor/registry.ts';
import { estimateMaxModelLen, getKvCacheConfig, maxConcurrency } from '../../kv-cache/kv-cache-config.ts';
import type { KvCacheConfig } from '../../kv-cache/kv-cache-spec.ts';
import { logger } from '../../logging/logger.ts';
import { Scheduler } from '../../scheduler/scheduler.ts';
import { createGrammarBackend } from '../../structured-output/create-backend.ts';
import { StructuredOutputManager } from '../../structured-output/structured-output-manager.ts';
import type { ClientConnection } from '../core-link.ts';
import type { CoreStatus } from '../core-status.ts';
import { EngineCore } from './engine-core.ts';
import type { CoreReady } from './handshake.ts';
import { NgramDrafter } from './ngram-drafter.ts';
import { StepLog } from './step-log.ts';
import { StepWork } from './step-work.ts';

const log = logger('core');

export interface EngineCoreContext {
  config: BaoConfig;
  coreIndex: number;
  status: CoreStatus;
  connections: ClientConnection[];
  /** Called once the native libraries are loaded: Workers load them one after another. */
  onLibrariesLoaded(): void;
}

/** Device, model, KV cache and scheduler of one core, ready to run. Throws what the operator should read. */
export async function createEngineCore(context: EngineCoreContext): Promise<{ core: EngineCore; ready: CoreReady }> {
  const { config, coreIndex } = context;
  const createExecutor = await getExecutorClass(config.parallel.distributedExecutorBackend);
  const executor = createExecutor({ config, coreIndex });
  await executor.initDevice();
  context.onLibrariesLoaded();
  await executor.loadModel();
  const { kvCache, maxModelLen } = sizeKvCache(config, executor);
  executor.initializeFromConfig(kvCache);

  const { scheduler, cache, speculative, observability } = config;
  const core = new EngineCore(
    executor,
    new Scheduler(
      {
        maxNumSeqs: scheduler.maxNumSeqs,
        maxNumBatchedTokens: scheduler.maxNumBatchedTokens,
        maxModelLen,
        longPrefillTokenThreshold: scheduler.longPrefillTokenThreshold,
        enableChunkedPrefill: scheduler.enableChunkedPrefill,
        policy: scheduler.schedulingPolicy,
        watermark: scheduler.watermark,
        enablePrefixCaching: cache.enablePrefixCaching,
        maxLoras: config.lora.maxLoras,
        numLookaheadTokens: numLookaheadTokens(config),
      },
      kvCache,
    ),
    context.connections,
    context.status,
    {
      maxInFlight: scheduler.asyncScheduling ? 2 : 1,
      seed: config.model.seed + coreIndex,
      stepLog: new StepLog({
        logsAll: observability.enableLoggingIterationDetails,
        slowStepMs: observability.logSlowSteps === null ? null : observability.logSlowSteps * 1000,
      }),
      ngramDrafter: speculative?.method === 'ngram' ? new NgramDrafter(speculative) : null,
      stepWork:
        observability.enableMfuMetrics && !observability.disableLogStats ? new StepWork(executor.modelWork()) : null,
      // The front end that checked the request has registered the vocabulary.
      structuredOutputs: new StructuredOutputManager((name) => createGrammarBackend(name, config)),
    },
  );
  return { core, ready: describe(config, kvCache, maxModelLen) };
}

/** A draft model writes keys behind the tokens. */
function numLookaheadTokens({ speculative }: BaoConfig): number {
  return speculative?.method === 'draft_model' ? speculative.numSpeculativeTokens : 0;
}

function sizeKvCache(config: BaoConfig, executor: Executor): { kvCache: KvCacheConfig; maxModelLen: number } {
  const specs = executor.kvCacheSpecs();
  const availableBytes = executor.determineAvailableMemory();
  const sizing = {
    maxModelLen: config.model.maxModelLen,
    maxNumBatchedTokens: config.scheduler.maxNumBatchedTokens + numLookaheadTokens(config),
    numBlocksOverride: config.cache.numGpuBlocksOverride,
  };
  const maxModelLen = config.model.maxModelLenAuto
    ? Math.min(sizing.maxModelLen, estimateMaxModelLen(specs, availableBytes, sizing))
    : sizing.maxModelLen;
  const kvCache = getKvCacheConfig(specs, availableBytes, { ...sizing, maxModelLen });
  logKvCache(config, kvCache, maxModelLen);
  return { kvCache, maxModelLen };
}

function logKvCache(config: BaoConfig, kvCache: KvCacheConfig, maxModelLen: number): void {
  if (kvCache.groups.length === 0) {
    log.info('The model keeps no KV cache');
    return;
  }
  const tokens = kvCache.numBlocks * config.cache.blockSize;
  log.info(`KV cache: ${kvCache.numBlocks} blocks of ${config.cache.blockSize} tokens, ${tokens} tokens in all`);
  log.info(
    `Maximum concurrency for ${maxModelLen} tokens per request: ${maxConcurrency(kvCache, maxModelLen).toFixed(2)}x`,
  );
}

function describe(config: BaoConfig, kvCache: KvCacheConfig, maxModelLen: number): CoreReady {
  return {
    numGpuBlocks: kvCache.numBlocks,
    blockSize: config.cache.blockSize,
    maxModelLen,
    kvCacheBytes: kvCache.tensors.reduce((sum, tensor) => sum + tensor.bytes, 0),
    maxConcurrency: maxConcurrency(kvCache, maxModelLen),
  };
}
