import { Counter, Gauge, type Registry } from 'prom-client';
import { wallClockMs } from '../engine/clock.ts';
import type { SchedulerStats } from '../engine/messages.ts';
import type { EngineObserver, FinishedSequence, SequenceTimes } from '../engine/observer.ts';
import type { FinishReason } from '../scheduler/finish-reason.ts';
import { BoundHistogram, type HistogramChild } from './bound-histogram.ts';
import {
  ITERATION_TOKENS_BUCKETS,
  oneTwoFiveBuckets,
  PARAMS_N_BUCKETS,
  PREEMPTIONS_BUCKETS,
  REQUEST_LATENCY_BUCKETS,
  TIME_TO_FIRST_TOKEN_BUCKETS,
  TOKEN_LATENCY_BUCKETS,
} from './buckets.ts';

export interface EngineMetricsOptions {
  modelName: string;
  /** Engine cores; each is an `engine` label, "0" to "numEngines - 1". */
  numEngines: number;
  maxModelLen: number;
  /** Adapters that may run at once; null: there are none. */
  maxLoras: number | null;
  /** Most drafts of a request in a step; null: there are none. */
  numSpeculativeTokens: number | null;
}

const FINISH_REASONS: readonly FinishReason[] = ['stop', 'length', 'abort', 'error', 'repetition'];

/** Counters of caches that no server of this kind has: boards ask for them, and vLLM without such a cache shows 0 too. */
const ABSENT_CACHES = [
  ['vllm:external_prefix_cache_queries_total', 'Tokens looked up in a KV cache outside of the engine; there is none.'],
  ['vllm:external_prefix_cache_hits_total', 'Tokens found in a KV cache outside of the engine; there is none.'],
  ['vllm:mm_cache_queries_total', 'Images, sounds and videos looked up in their cache; models take text alone.'],
  ['vllm:mm_cache_hits_total', 'Images, sounds and videos found in their cache; models take text alone.'],
] as const;

const IDLE_STATS: SchedulerStats = {
  numRunning: 0,
  numWaiting: 0,
  numDeferred: 0,
  sleepLevel: -1,
  kvCacheUsage: 0,
  prefixCacheQueries: 0,
  prefixCacheHits: 0,
  numPreemptions: 0,
  numDrafts: 0,
  numDraftTokens: 0,
  numAcceptedTokens: 0,
  acceptedPerPosition: [],
  runningLoraAdapters: [],
  waitingLoraAdapters: [],
  numSteps: 0,
  numScheduledTokens: 0,
  stepMs: 0,
  hostMs: 0,
  estimatedFlops: 0,
  estimatedReadBytes: 0,
  estimatedWriteBytes: 0,
};

/** vLLM's histograms by the name of what they measure, one child an engine. */
interface EngineHistograms {
  iterationTokens: HistogramChild;
  timeToFirstToken: HistogramChild;
  interTokenLatency: HistogramChild;
  timePerOutputToken: HistogramChild;
  e2eLatency: HistogramChild;
  queueTime: HistogramChild;
  inferenceTime: HistogramChild;
  prefillTime: HistogramChild;
  decodeTime: HistogramChild;
  promptTokens: HistogramChild;
  generationTokens: HistogramChild;
  maxGenerationTokens: HistogramChild;
  paramsN: HistogramChild;
  paramsMaxTokens: HistogramChild;
  numPreemptions: HistogramChild;
  prefillComputedTokens: HistogramChild;
}

/** What is counted of one engine between scrapes; plain numbers, because some change with every token. */
class EngineTotals {
  promptTokens = 0;
  cachedTokens = 0;
  generationTokens = 0;
  readonly finished: Record<FinishReason, number> = { stop: 0, length: 0, abort: 0, error: 0, repetition: 0 };
  stats = IDLE_STATS;

  constructor(
    readonly labels: { model_name: string; engine: string },
    readonly histograms: EngineHistograms,
  ) {}
}

/**
 * The engine's metrics, under vLLM's names. Counters and gauges are written to prom-client when a scraper asks.
 * Where several front ends have parts of them, what comes from a core's own statistics is known to all of them and merged as a maximum, the rest as a sum.
 */
export class EngineMetrics implements EngineObserver {
  private readonly engines: readonly EngineTotals[];
  private readonly rejections = new Map<string, number>();
  private readonly loraInfo: { update(): void } | null = null;

  constructor(
    private readonly registry: Registry,
    private readonly options: EngineMetricsOptions,
  ) {
    const bind = this.defineHistograms();
    this.engines = Array.from({ length: options.numEngines }, (_, i) => {
      const labels = { model_name: options.modelName, engine: String(i) };
      return new EngineTotals(labels, bind(labels));
    });
    this.defineGauges();
    this.defineCounters();
    if (options.maxLoras !== null) this.loraInfo = this.defineLoraInfo(options.maxLoras);
  }

  onStep(
    coreIndex: number,
    step: { numPromptTokens: number; numGenerationTokens: number; numStepTokens: number },
  ): void {
    const engine = this.engines[coreIndex]!;
    engine.promptTokens += step.numPromptTokens;
    engine.generationTokens += step.numGenerationTokens;
    // Other front ends' share of a step that one has counted, and news without a step, bring no tokens.
    if (step.numStepTokens > 0) engine.histograms.iterationTokens.observe(step.numStepTokens);
  }

  onFirstToken(coreIndex: number, times: SequenceTimes): void {
    const engine = this.engines[coreIndex]!;
    engine.cachedTokens += times.cachedTokens;
    engine.histograms.timeToFirstToken.observe(seconds(times.firstTokenMs - times.arrivalMs));
  }

  onInterTokenLatency(coreIndex: number, latencyMs: number, count: number): void {
    this.engines[coreIndex]!.histograms.interTokenLatency.observe(seconds(latencyMs), count);
  }

  onFinished(coreIndex: number, sequence: FinishedSequence): void {
    const engine = this.engines[coreIndex]!;
    const { histograms } = engine;
    const { times, request, params } = sequence;
    const numPromptTokens = request.promptTokenIds.length;
    engine.finished[sequence.finishReason]++;
    histograms.promptTokens.observe(numPromptTokens);
    histograms.generationTokens.observe(sequence.numGenerationTokens);
    if (sequence.maxGenerationTokens !== null) {
      histograms.maxGenerationTokens.observe(sequence.maxGenerationTokens);
      if (params !== null) histograms.paramsN.observe(params.n);
    }
    if (params !== null) histograms.paramsMaxTokens.observe(params.maxTokens);
    histograms.numPreemptions.observe(sequence.numPreemptions);
    histograms.e2eLatency.observe(seconds(sequence.finishedMs - times.arrivalMs));
    // A request that ended before its first token never had the other phases.
    if (times.isFirst) return;
    const decodeMs = times.lastTokenMs - times.firstTokenMs;
    histograms.prefillComputedTokens.observe(Math.max(0, numPromptTokens - times.cachedTokens));
    histograms.queueTime.observe(seconds(times.firstScheduledMs - times.arrivalMs));
    histograms.prefillTime.observe(seconds(times.firstTokenMs - times.firstScheduledMs));
    histograms.inferenceTime.observe(seconds(times.lastTokenMs - times.firstScheduledMs));
    histograms.decodeTime.observe(seconds(decodeMs));
    histograms.timePerOutputToken.observe(seconds(decodeMs / Math.max(1, sequence.numGenerationTokens - 1)));
  }

  onStats(coreIndex: number, stats: SchedulerStats): void {
    this.engines[coreIndex]!.stats = stats;
    this.loraInfo?.update();
  }

  onRejected(reason: string): void {
    this.rejections.set(reason, (this.rejections.get(reason) ?? 0) + 1);
  }

  /** The adapters of all engines together; the value is when they were last told, in seconds since the epoch. */
  private defineLoraInfo(maxLoras: number): { update(): void } {
    const gauge = new Gauge({
      name: 'vllm:lora_requests_info',
      help: 'Adapters of running and waiting requests, and when that was so.',
      labelNames: ['max_lora', 'running_lora_adapters', 'waiting_lora_adapters'],
      aggregator: 'max',
      registers: [this.registry],
    });
    const names = (list: 'runningLoraAdapters' | 'waitingLoraAdapters') =>
      [...new Set(this.engines.flatMap(({ stats }) => stats[list]))].sort().join(',');
    return {
      update: () => {
        gauge.reset();
        const labels = {
          max_lora: String(maxLoras),
          running_lora_adapters: names('runningLoraAdapters'),
          waiting_lora_adapters: names('waitingLoraAdapters'),
        };
        gauge.set(labels, seconds(wallClockMs()));
      },
    };
  }

  private defineHistograms(): (labels: EngineTotals['labels']) => EngineHistograms {
    const define = (name: string, help: string, buckets: number[]) =>
      new BoundHistogram({ name, help, buckets, labelNames: ['model_name', 'engine'], registers: [this.registry] });
    const tokens = oneTwoFiveBuckets(this.options.maxModelLen);
    const definitions: Record<keyof EngineHistograms, BoundHistogram> = {
      iterationTokens: define('vllm:iteration_tokens_total', 'Tokens of a step.', ITERATION_TOKENS_BUCKETS),
      timeToFirstToken: define(
        'vllm:time_to_first_token_seconds',
        'From arrival to the first token.',
        TIME_TO_FIRST_TOKEN_BUCKETS,
      ),
      interTokenLatency: define('vllm:inter_token_latency_seconds', 'Between two tokens.', TOKEN_LATENCY_BUCKETS),
      timePerOutputToken: define(
        'vllm:request_time_per_output_token_seconds',
        "A request's time per token after the first.",
        TOKEN_LATENCY_BUCKETS,
      ),
      e2eLatency: define('vllm:e2e_request_latency_seconds', 'From arrival to the end.', REQUEST_LATENCY_BUCKETS),
      queueTime: define('vllm:request_queue_time_seconds', 'Waiting to be scheduled.', REQUEST_LATENCY_BUCKETS),
      inferenceTime: define(
        'vllm:request_inference_time_seconds',
        'From scheduling to the end.',
        REQUEST_LATENCY_BUCKETS,
      ),
      prefillTime: define(
        'vllm:request_prefill_time_seconds',
        'From scheduling to the first token.',
        REQUEST_LATENCY_BUCKETS,
      ),
      decodeTime: define(
        'vllm:request_decode_time_seconds',
        'From the first token to the last.',
        REQUEST_LATENCY_BUCKETS,
      ),
      promptTokens: define('vllm:request_prompt_tokens', 'Prompt tokens of a request.', tokens),
      generationTokens: define('vllm:request_generation_tokens', 'Generated tokens of a request.', tokens),
      maxGenerationTokens: define(
        'vllm:request_max_num_generation_tokens',
        'Tokens of the longest of the answers to a request.',
        tokens,
      ),
      paramsN: define('vllm:request_params_n', 'The parameter n.', PARAMS_N_BUCKETS),
      paramsMaxTokens: define('vllm:request_params_max_tokens', 'The parameter max_tokens.', tokens),
      numPreemptions: define('vllm:request_num_preemptions', 'Preemptions of a request.', PREEMPTIONS_BUCKETS),
      prefillComputedTokens: define(
        'vllm:request_prefill_kv_computed_tokens',
        'Prompt tokens that were not in the prefix cache.',
        tokens,
      ),
    };
    const names = Object.keys(definitions) as (keyof EngineHistograms)[];
    return (labels) =>
      Object.fromEntries(names.map((name) => [name, definitions[name].child(labels)])) as unknown as EngineHistograms;
  }

  private defineGauges(): void {
    const perEngine = ['model_name', 'engine'];
    const define = (
      name: string,
      help: string,
      labelNames: string[],
      values: (stats: SchedulerStats) => [Record<string, string>, number][],
    ) => {
      const { engines } = this;
      new Gauge({
        name,
        help,
        labelNames,
        // Cores send their statistics to the first front end alone.
        aggregator: 'first',
        registers: [this.registry],
        collect() {
          for (const { labels, stats } of engines) {
            for (const [more, value] of values(stats)) this.set({ ...labels, ...more }, value);
          }
        },
      });
    };
    define('vllm:num_requests_running', 'Requests in the running batch.', perEngine, (s) => [[{}, s.numRunning]]);
    define('vllm:num_requests_waiting', 'Requests waiting to be scheduled.', perEngine, (s) => [[{}, s.numWaiting]]);
    define(
      'vllm:num_requests_waiting_by_reason',
      'Waiting requests by what they wait for.',
      [...perEngine, 'reason'],
      (s) => [
        [{ reason: 'capacity' }, s.numWaiting - s.numDeferred],
        [{ reason: 'deferred' }, s.numDeferred],
      ],
    );
    define('vllm:kv_cache_usage_perc', 'Share of the KV cache in use, 1 is all.', perEngine, (s) => [
      [{}, s.kvCacheUsage],
    ]);
    define(
      'vllm:engine_sleep_state',
      'Whether the engine is awake, or how deep it sleeps.',
      [...perEngine, 'sleep_state'],
      (s) => [
        [{ sleep_state: 'awake' }, s.sleepLevel < 1 ? 1 : 0],
        [{ sleep_state: 'weights_offloaded' }, s.sleepLevel === 1 ? 1 : 0],
        [{ sleep_state: 'discard_all' }, s.sleepLevel === 2 ? 1 : 0],
      ],
    );
  }

  private defineCounters(): void {
    const perEngine = ['model_name', 'engine'];
    const define = (
      name: string,
      help: string,
      options: { labelNames?: string[]; aggregator?: 'sum' | 'max' },
      values: (engine: EngineTotals) => [Record<string, string>, number][],
    ) => {
      const { engines } = this;
      new Counter({
        name,
        help,
        labelNames: [...perEngine, ...(options.labelNames ?? [])],
        aggregator: options.aggregator ?? 'sum',
        registers: [this.registry],
        collect() {
          this.reset();
          for (const engine of engines) {
            for (const [more, value] of values(engine)) this.inc({ ...engine.labels, ...more }, value);
          }
        },
      });
    };
    const ofCore = { aggregator: 'max' } as const;
    define('vllm:prefix_cache_queries_total', 'Tokens looked up in the prefix cache.', ofCore, (e) => [
      [{}, e.stats.prefixCacheQueries],
    ]);
    define('vllm:prefix_cache_hits_total', 'Tokens found in the prefix cache.', ofCore, (e) => [
      [{}, e.stats.prefixCacheHits],
    ]);
    define(
      'vllm:prompt_tokens_cached_by_source_total',
      'Tokens found in the prefix cache by where it lies.',
      { ...ofCore, labelNames: ['source'] },
      (e) => [[{ source: 'device' }, e.stats.prefixCacheHits]],
    );
    for (const [name, help] of ABSENT_CACHES) define(name, help, {}, () => [[{}, 0]]);
    define('vllm:num_preemptions_total', 'Preempted requests.', ofCore, (e) => [[{}, e.stats.numPreemptions]]);
    const { numSpeculativeTokens } = this.options;
    if (numSpeculativeTokens !== null) {
      const positions = Array.from({ length: numSpeculativeTokens }, (_, position) => position);
      define('vllm:spec_decode_num_drafts_total', 'Drafts, one a request and step.', ofCore, (e) => [
        [{}, e.stats.numDrafts],
      ]);
      define('vllm:spec_decode_num_draft_tokens_total', 'Drafted tokens.', ofCore, (e) => [
        [{}, e.stats.numDraftTokens],
      ]);
      define('vllm:spec_decode_num_accepted_tokens_total', 'Drafted tokens that held.', ofCore, (e) => [
        [{}, e.stats.numAcceptedTokens],
      ]);
      define(
        'vllm:spec_decode_num_accepted_tokens_per_pos_total',
        'Drafted tokens that held, by their place in the draft.',
        { ...ofCore, labelNames: ['position'] },
        (e) => positions.map((at) => [{ position: String(at) }, e.stats.acceptedPerPosition[at] ?? 0]),
      );
    }
    define(
      'vllm:estimated_flops_per_gpu_total',
      'Floating point operations of a device, estimated with --enable-mfu-metrics.',
      ofCore,
      (e) => [[{}, e.stats.estimatedFlops]],
    );
    define(
      'vllm:estimated_read_bytes_per_gpu_total',
      "Bytes read from a device's memory, estimated with --enable-mfu-metrics.",
      ofCore,
      (e) => [[{}, e.stats.estimatedReadBytes]],
    );
    define(
      'vllm:estimated_write_bytes_per_gpu_total',
      "Bytes written to a device's memory, estimated with --enable-mfu-metrics.",
      ofCore,
      (e) => [[{}, e.stats.estimatedWriteBytes]],
    );
    define('vllm:prompt_tokens_total', 'Prompt tokens.', {}, (e) => [[{}, e.promptTokens]]);
    define(
      'vllm:prompt_tokens_by_source_total',
      'Prompt tokens by where their keys and values come from.',
      { labelNames: ['source'] },
      (e) => [
        [{ source: 'local_compute' }, Math.max(0, e.promptTokens - e.cachedTokens)],
        [{ source: 'local_cache_hit' }, e.cachedTokens],
      ],
    );
    define('vllm:prompt_tokens_cached_total', 'Prompt tokens found in the prefix cache.', {}, (e) => [
      [{}, e.cachedTokens],
    ]);
    define('vllm:generation_tokens_total', 'Generated tokens.', {}, (e) => [[{}, e.generationTokens]]);
    define('vllm:request_success_total', 'Requests that ended, by how.', { labelNames: ['finished_reason'] }, (e) =>
      FINISH_REASONS.map((reason) => [{ finished_reason: reason }, e.finished[reason]]),
    );
    const { rejections, options } = this;
    new Counter({
      name: 'vllm:admission_rejections_total',
      help: "Requests refused because of the server's load.",
      labelNames: ['model_name', 'reason'],
      registers: [this.registry],
      collect() {
        this.reset();
        for (const [reason, count] of rejections) this.inc({ model_name: options.modelName, reason }, count);
      },
    });
  }
}

/** Clocks of two threads may differ by a little: no time is negative. */
function seconds(ms: number): number {
  return Math.max(0, ms / 1000);
}
