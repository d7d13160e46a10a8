import type { GpuFacts } from '../device/cuda/gpu-facts.ts';
import type { SchedulerConfig } from './bao-config.ts';
import type { GroupValues } from './flags/index.ts';

/** Who runs the engine: an API server, whose users wait for tokens, or a program, which wants all results soon. */
export type UsageContext = 'api-server' | 'llm-class';

interface BatchDefaults {
  maxNumSeqs: number;
  maxNumBatchedTokens: Readonly<Record<UsageContext, number>>;
}

const CPU_DEFAULTS: BatchDefaults = { maxNumSeqs: 128, maxNumBatchedTokens: { 'api-server': 2048, 'llm-class': 2048 } };
const GPU_DEFAULTS: BatchDefaults = { maxNumSeqs: 256, maxNumBatchedTokens: { 'api-server': 2048, 'llm-class': 8192 } };
const LARGE_GPU_DEFAULTS: BatchDefaults = {
  maxNumSeqs: 1024,
  maxNumBatchedTokens: { 'api-server': 8192, 'llm-class': 16384 },
};
const LARGE_GPU_BYTES = 70 * 2 ** 30;
/** An A100 has the memory of a large GPU, but not its arithmetic. */
const A100_CAPABILITY = '80';

/** vLLM's defaults. @param gpu null: the device is the CPU */
function defaultsFor(gpu: GpuFacts | null): BatchDefaults {
  if (gpu === null) return CPU_DEFAULTS;
  const isLarge = gpu.memoryBytes >= LARGE_GPU_BYTES && gpu.computeCapability !== A100_CAPABILITY;
  return isLarge ? LARGE_GPU_DEFAULTS : GPU_DEFAULTS;
}

type BatchLimits = Pick<SchedulerConfig, 'maxNumSeqs' | 'maxNumBatchedTokens'>;

/**
 * Decides the limits of a batch that were not given.
 *
 * @param tokensPerDecode what a request that has its prompt takes of a step: a token, and its drafts
 */
export function resolveBatchLimits(
  given: GroupValues<'scheduler'>,
  maxModelLen: number,
  usage: UsageContext,
  gpu: GpuFacts | null,
  tokensPerDecode = 1,
): BatchLimits {
  const defaults = defaultsFor(gpu);
  const maxNumSeqs = given.maxNumSeqs ?? defaults.maxNumSeqs;
  const budget = Math.max(defaults.maxNumBatchedTokens[usage], given.enableChunkedPrefill ? 0 : maxModelLen);
  // More than all requests at full length can never be scheduled; with less than what each decodes some would wait for others' ends.
  const maxNumBatchedTokens =
    given.maxNumBatchedTokens ?? Math.max(Math.min(budget, maxNumSeqs * maxModelLen), maxNumSeqs * tokensPerDecode);
  const fitting = Math.max(1, Math.floor(maxNumBatchedTokens / tokensPerDecode));
  return { maxNumBatchedTokens, maxNumSeqs: given.maxNumSeqs ?? Math.min(maxNumSeqs, fitting) };
}
