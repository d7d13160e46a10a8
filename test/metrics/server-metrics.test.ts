import { afterEach, describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import type { SchedulerStats } from '../../src/engine/messages.ts';
import { type FinishedSequence, SequenceTimes } from '../../src/engine/observer.ts';
import { createMetrics, renderMerged, type ServerMetrics, tokenTotals } from '../../src/metrics/server-metrics.ts';
import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';
import { parseExposition, sampleOf } from './exposition.ts';
import { metricsConfig } from './metrics-config.ts';

const open: ServerMetrics[] = [];
afterEach(() => {
  for (const metrics of open.splice(0)) metrics.close();
});

function create(...args: Parameters<typeof createMetrics>): ServerMetrics {
  const metrics = createMetrics(...args);
  open.push(metrics);
  return metrics;
}

const STATS: SchedulerStats = {
  numRunning: 3,
  numWaiting: 2,
  numDeferred: 0,
  sleepLevel: -1,
  kvCacheUsage: 0.25,
  prefixCacheQueries: 100,
  prefixCacheHits: 40,
  numPreemptions: 7,
  numDrafts: 10,
  numDraftTokens: 28,
  numAcceptedTokens: 15,
  acceptedPerPosition: [9, 6],
  runningLoraAdapters: ['a', 'b'],
  waitingLoraAdapters: ['c'],
  numSteps: 1,
  numScheduledTokens: 1,
  stepMs: 1,
  hostMs: 1,
  estimatedFlops: 3e15,
  estimatedReadBytes: 2e12,
  estimatedWriteBytes: 1e12,
};

/** A request of 10 prompt tokens (4 cached) and 5 new ones: queued 1 s, prefill 0.5 s, then 2 s. */
function finished(changes: Partial<FinishedSequence> = {}): FinishedSequence {
  const times = new SequenceTimes(10_000);
  times.cachedTokens = 4;
  times.onFirstToken(11_000, 11_500);
  times.onToken(13_500);
  return {
    request: { requestId: 'r', promptTokenIds: new Int32Array(10) },
    params: { ...DEFAULT_SAMPLING_PARAMS, maxTokens: 64 },
    finishReason: 'stop',
    times,
    finishedMs: 13_600,
    numGenerationTokens: 5,
    maxGenerationTokens: 5,
    numPreemptions: 2,
    ...changes,
  };
}

const HTTP = {
  method: 'POST',
  handler: '/v1/completions',
  status: 200,
  durationMs: 120,
  requestBytes: 50,
  responseBytes: 700,
};

function feed(metrics: ServerMetrics): void {
  const { observer } = metrics;
  const sequence = finished();
  observer.onStep(0, { numPromptTokens: 10, numGenerationTokens: 5, numStepTokens: 14 });
  observer.onFirstToken(0, sequence.times);
  observer.onInterTokenLatency(0, 2000, 1);
  observer.onFinished(0, sequence);
  observer.onStats(0, STATS);
  observer.onRejected('queue_full');
  metrics.http.observeHttp(HTTP);
  metrics.http.observeToolParser({ requestType: 'chat_completions', isStreaming: true, hasToolCall: false });
}

/** The reference file's lines: name, type, labels, bounds. */
const REFERENCE = (await Bun.file(join(import.meta.dir, '../reference/metrics.md')).text())
  .split('\n')
  .map((line) => line.split('|').map((cell) => cell.trim()))
  .filter((cells) => cells.length === 4 && /^(vllm:|http_)/.test(cells[0]!))
  .map(([name, type, labels, bounds]) => ({
    name: name!,
    type: type!,
    labels: labels === '' ? [] : labels!.split(', '),
    bounds: bounds === '' ? [] : bounds!.split(' '),
  }));

describe('names, types, labels and buckets are those of vLLM', async () => {
  const metrics = createMetrics(metricsConfig());
  feed(metrics);
  metrics.close();
  const exposed = parseExposition(await metrics.http.render());

  test('the reference was read', () => {
    expect(REFERENCE.length).toBeGreaterThan(40);
  });

  for (const { name, type, labels, bounds } of REFERENCE) {
    test(name, () => {
      const metric = exposed.get(name);
      expect(metric?.type).toBe(type);
      for (const sample of metric!.samples) {
        expect(
          Object.keys(sample.labels)
            .filter((label) => label !== 'le')
            .sort(),
        ).toEqual([...labels].sort());
      }
      const buckets = metric!.samples.filter((sample) => sample.name === `${name}_bucket`);
      expect(buckets.map((sample) => sample.labels.le!)).toEqual(bounds);
    });
  }

  test('nothing else of its own invention', () => {
    const known = new Set(REFERENCE.map((metric) => metric.name));
    const own = [...exposed.keys()].filter((name) => !known.has(name) && !name.startsWith('process_'));
    expect(own).toEqual([]);
    expect([...exposed.keys()].filter((name) => name.endsWith('_created'))).toEqual([]);
  });
});

test('values of one request', async () => {
  const metrics = create(metricsConfig());
  feed(metrics);
  const text = await metrics.http.render();
  const value = (name: string, labels: Record<string, string> = {}) => sampleOf(text, name, labels);
  const engine = { model_name: 'demo', engine: '0' };
  expect(value('vllm:prompt_tokens_total', engine)).toBe(10);
  expect(value('vllm:generation_tokens_total', engine)).toBe(5);
  expect(value('vllm:prompt_tokens_cached_total', engine)).toBe(4);
  expect(value('vllm:prompt_tokens_by_source_total', { source: 'local_compute' })).toBe(6);
  expect(value('vllm:prompt_tokens_by_source_total', { source: 'local_cache_hit' })).toBe(4);
  expect(value('vllm:request_success_total', { finished_reason: 'stop' })).toBe(1);
  expect(value('vllm:request_success_total', { finished_reason: 'abort' })).toBe(0);
  expect(value('vllm:admission_rejections_total', { reason: 'queue_full' })).toBe(1);
  expect(value('vllm:time_to_first_token_seconds_sum', engine)).toBe(1.5);
  expect(value('vllm:inter_token_latency_seconds_sum', engine)).toBe(2);
  expect(value('vllm:request_queue_time_seconds_sum', engine)).toBe(1);
  expect(value('vllm:request_prefill_time_seconds_sum', engine)).toBe(0.5);
  expect(value('vllm:request_decode_time_seconds_sum', engine)).toBe(2);
  expect(value('vllm:request_inference_time_seconds_sum', engine)).toBe(2.5);
  expect(value('vllm:e2e_request_latency_seconds_sum', engine)).toBe(3.6);
  expect(value('vllm:request_time_per_output_token_seconds_sum', engine)).toBe(0.5);
  expect(value('vllm:request_prefill_kv_computed_tokens_sum', engine)).toBe(6);
  expect(value('vllm:request_num_preemptions_sum', engine)).toBe(2);
  expect(value('vllm:iteration_tokens_total_bucket', { le: '8.0' })).toBe(0);
  expect(value('vllm:iteration_tokens_total_bucket', { le: '16.0' })).toBe(1);
  expect(value('vllm:num_requests_running', engine)).toBe(3);
  expect(value('vllm:num_requests_waiting_by_reason', { reason: 'capacity' })).toBe(2);
  expect(value('vllm:prompt_tokens_cached_by_source_total', { source: 'device' })).toBe(STATS.prefixCacheHits);
  expect(value('vllm:kv_cache_usage_perc', engine)).toBe(0.25);
  expect(value('vllm:num_preemptions_total', engine)).toBe(7);
  expect(value('vllm:estimated_flops_per_gpu_total', engine)).toBe(3e15);
  expect(value('vllm:estimated_read_bytes_per_gpu_total', engine)).toBe(2e12);
  expect(value('vllm:estimated_write_bytes_per_gpu_total', engine)).toBe(1e12);
  expect(value('vllm:engine_sleep_state', { sleep_state: 'awake' })).toBe(1);
  expect(value('vllm:cache_config_info', { num_gpu_blocks: '640', enable_prefix_caching: 'True' })).toBe(1);
  expect(value('http_requests_total', { handler: '/v1/completions', method: 'POST', status: '2xx' })).toBe(1);
  expect(value('http_response_size_bytes_sum', { handler: '/v1/completions' })).toBe(700);
  expect(value('http_request_duration_seconds_sum', { handler: '/v1/completions', method: 'POST' })).toBe(0.12);
  expect(value('http_request_duration_highr_seconds_bucket', { le: '0.1' })).toBe(0);
  expect(value('http_request_duration_highr_seconds_bucket', { le: '0.25' })).toBe(1);
  expect(value('process_resident_memory_bytes')).toBeGreaterThan(1e6);
  // Scraping changes nothing.
  const again = await metrics.http.render();
  const engineLines = (exposition: string) => exposition.split('\n').filter((line) => line.startsWith('vllm:'));
  expect(engineLines(again)).toEqual(engineLines(text));
});

test('drafts are counted where there are any, with each place of a draft from the start', async () => {
  const metrics = create(metricsConfig({ numSpeculativeTokens: 3 }));
  const counts = async () => {
    const text = await metrics.http.render();
    const total = (name: string) => sampleOf(text, `vllm:spec_decode_num_${name}_total`, { engine: '0' });
    const accepted = parseExposition(text).get('vllm:spec_decode_num_accepted_tokens_per_pos_total')!.samples;
    const places = accepted.map(({ labels, value }) => [labels.position, value]);
    return [total('drafts'), total('draft_tokens'), total('accepted_tokens'), ...places];
  };
  expect(await counts()).toEqual([0, 0, 0, ['0', 0], ['1', 0], ['2', 0]]);
  metrics.observer.onStats(0, STATS);
  expect(await counts()).toEqual([10, 28, 15, ['0', 9], ['1', 6], ['2', 0]]);
});

test('caches that there are not were never asked', async () => {
  const metrics = create(metricsConfig({ dataParallelSize: 2 }));
  feed(metrics);
  const text = await metrics.http.render();
  for (const cache of ['external_prefix', 'mm']) {
    for (const counted of ['queries', 'hits']) {
      const samples = parseExposition(text).get(`vllm:${cache}_cache_${counted}_total`)!.samples;
      expect(samples.map(({ labels, value }) => [labels.engine, value])).toEqual([
        ['0', 0],
        ['1', 0],
      ]);
    }
  }
});

test('n answers to a request are one request, as long as the longest of them', async () => {
  const metrics = create(metricsConfig());
  const params = { ...DEFAULT_SAMPLING_PARAMS, n: 2 };
  metrics.observer.onFinished(0, finished({ params, numGenerationTokens: 9, maxGenerationTokens: null }));
  metrics.observer.onFinished(0, finished({ params, numGenerationTokens: 3, maxGenerationTokens: 9 }));
  const text = await metrics.http.render();
  const both = (name: string) => [sampleOf(text, `${name}_count`), sampleOf(text, `${name}_sum`)];
  expect(both('vllm:request_params_n')).toEqual([1, 2]);
  expect(both('vllm:request_max_num_generation_tokens')).toEqual([1, 9]);
  expect(both('vllm:request_generation_tokens')).toEqual([2, 12]);
  expect(sampleOf(text, 'vllm:request_success_total', { finished_reason: 'stop' })).toBe(2);
});

test('the engine sleeps, and what waits then is deferred', async () => {
  const metrics = create(metricsConfig());
  metrics.observer.onStats(0, { ...STATS, numDeferred: 2, sleepLevel: 1 });
  const text = await metrics.http.render();
  const states = ['awake', 'weights_offloaded', 'discard_all'];
  const values = states.map((state) => sampleOf(text, 'vllm:engine_sleep_state', { sleep_state: state }));
  expect(values).toEqual([0, 1, 0]);
  const waiting = (reason: string) => sampleOf(text, 'vllm:num_requests_waiting_by_reason', { reason });
  expect([waiting('capacity'), waiting('deferred')]).toEqual([0, 2]);
});

test('a request that ends before its first token has no phases', async () => {
  const metrics = create(metricsConfig());
  metrics.observer.onFinished(
    0,
    finished({ finishReason: 'abort', times: new SequenceTimes(13_000), numGenerationTokens: 0 }),
  );
  const text = await metrics.http.render();
  expect(sampleOf(text, 'vllm:request_success_total', { finished_reason: 'abort' })).toBe(1);
  expect(sampleOf(text, 'vllm:e2e_request_latency_seconds_count')).toBe(1);
  expect(sampleOf(text, 'vllm:request_queue_time_seconds_count')).toBe(0);
  expect(sampleOf(text, 'vllm:request_decode_time_seconds_count')).toBe(0);
});

test('a value on a bound belongs to its bucket, and one above all bounds only to +Inf', async () => {
  const metrics = create(metricsConfig());
  for (const latencyMs of [10, 10.001, 80_000, 80_001]) metrics.observer.onInterTokenLatency(0, latencyMs, 1);
  const text = await metrics.http.render();
  const upTo = (le: string) => sampleOf(text, 'vllm:inter_token_latency_seconds_bucket', { le });
  expect(['0.01', '0.025', '40.0', '80.0', '+Inf'].map(upTo)).toEqual([1, 2, 2, 3, 4]);
});

test('news of an engine that come without a step are no iteration', async () => {
  const metrics = create(metricsConfig());
  metrics.observer.onStep(0, { numPromptTokens: 0, numGenerationTokens: 0, numStepTokens: 0 });
  expect(sampleOf(await metrics.http.render(), 'vllm:iteration_tokens_total_count')).toBe(0);
});

test('each engine core has its own series', async () => {
  const metrics = create(metricsConfig({ dataParallelSize: 2 }));
  metrics.observer.onStep(1, { numPromptTokens: 0, numGenerationTokens: 3, numStepTokens: 3 });
  const text = await metrics.http.render();
  expect(sampleOf(text, 'vllm:generation_tokens_total', { engine: '0' })).toBe(0);
  expect(sampleOf(text, 'vllm:generation_tokens_total', { engine: '1' })).toBe(3);
  expect(sampleOf(text, 'vllm:cache_config_info', { engine: '1' })).toBe(1);
});

test('routes that only watch the server are not counted, and an absurd Content-Length does no harm', async () => {
  const metrics = create(metricsConfig());
  for (const handler of ['/health', '/metrics', '/ping']) metrics.http.observeHttp({ ...HTTP, handler });
  metrics.http.observeHttp({ ...HTTP, status: 503, requestBytes: Number.POSITIVE_INFINITY });
  const requests = parseExposition(await metrics.http.render()).get('http_requests_total')!.samples;
  expect(requests.map(({ labels, value }) => [labels.handler, labels.status, value])).toEqual([
    ['/v1/completions', '5xx', 1],
  ]);
});

test('several front ends are shown together: what each counted is added, what a core says of itself is not', async () => {
  const parts = [create(metricsConfig()), create(metricsConfig())];
  for (const part of parts) feed(part);
  const snapshots = await Promise.all(parts.map((part) => part.snapshot()));
  const merged = create(metricsConfig(), { collect: async () => structuredClone(snapshots), isFirst: true });
  const text = await merged.http.render();
  expect(text).toBe(await renderMerged(snapshots));
  expect(sampleOf(text, 'vllm:generation_tokens_total')).toBe(10);
  expect(sampleOf(text, 'vllm:iteration_tokens_total_bucket', { le: '16.0' })).toBe(2);
  expect(sampleOf(text, 'vllm:iteration_tokens_total_sum')).toBe(28);
  expect(sampleOf(text, 'http_requests_total', { status: '2xx' })).toBe(2);
  expect(sampleOf(text, 'vllm:num_requests_running')).toBe(3);
  expect(sampleOf(text, 'vllm:prefix_cache_hits_total')).toBe(40);
  expect(sampleOf(text, 'vllm:cache_config_info')).toBe(1);
  expect(tokenTotals(snapshots, 2)).toEqual([
    { promptTokens: sampleOf(text, 'vllm:prompt_tokens_total')!, generationTokens: 10 },
    { promptTokens: 0, generationTokens: 0 },
  ]);
  const own = await parts[0]!.http.render();
  expect([...parseExposition(text).keys()].sort()).toEqual([...parseExposition(own).keys()].sort());
});

test('--disable-log-stats leaves the HTTP and process metrics', async () => {
  const metrics = create(metricsConfig({ disableLogStats: true }));
  feed(metrics);
  const names = [...parseExposition(await metrics.http.render()).keys()];
  expect(names.filter((name) => name.startsWith('vllm:'))).toEqual([]);
  expect(names).toContain('http_requests_total');
  expect(names).toContain('process_cpu_seconds_total');
});
