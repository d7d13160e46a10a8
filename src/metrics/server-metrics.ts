import { AggregatorRegistry, type MetricObjectWithValues, type MetricValue, Registry } from 'prom-client';
import type { BaoConfig } from '../config/bao-config.ts';
import { type EngineObserver, NO_OBSERVER, overrideObserver } from '../engine/observer.ts';
import { logger } from '../logging/logger.ts';
import { defineCacheConfigInfo } from './cache-config-info.ts';
import { EngineMetrics } from './engine-metrics.ts';
import { HttpMetrics, type HttpObservation } from './http-metrics.ts';
import { ParserMetrics, type ToolParserObservation } from './parser-metrics.ts';
import { defineProcessMetrics } from './process-metrics.ts';
import { StatLogger, type TokenTotals } from './stat-logger.ts';

const log = logger('metrics');

const LOG_INTERVAL_MS = 10_000;

/** All metrics of one front end as plain data, which survives structuredClone. */
export type MetricsSnapshot = MetricObjectWithValues<MetricValue<string>>[];

/** The metrics of one front end. */
export interface ServerMetrics {
  /** Hears of everything that the engine does. */
  readonly observer: EngineObserver;
  /** What the HTTP server needs: the exposition for /metrics, and where requests are counted. */
  readonly http: {
    readonly contentType: string;
    render(): Promise<string>;
    observeHttp(observation: HttpObservation): void;
    observeToolParser(observation: ToolParserObservation): void;
  };
  snapshot(): Promise<MetricsSnapshot>;
  /** Stops the periodic log line. */
  close(): void;
}

/** Where there are several front ends. */
export interface MetricsPeers {
  /** Snapshots of all of them, this one included: /metrics shows their merger. */
  collect(): Promise<unknown[]>;
  /** The one that the cores send their own counters to: it writes the periodic log line for all. */
  isFirst: boolean;
}

/** Makes a front end's metrics and starts the periodic log line; with `--disable-log-stats` the engine is not observed at all. */
export function createMetrics(config: BaoConfig, peers: MetricsPeers | null = null): ServerMetrics {
  const registry = new Registry();
  const http = new HttpMetrics(registry);
  defineProcessMetrics(registry);
  const collect = async (): Promise<MetricsSnapshot[]> =>
    peers === null ? [await snapshotOf(registry)] : ((await peers.collect()) as MetricsSnapshot[]);
  const engine = config.observability.disableLogStats ? null : defineEngineMetrics(registry, config);
  const parsers = engine === null ? null : new ParserMetrics(registry, config.model.servedModelName[0]!);
  const logging = engine === null || peers?.isFirst === false ? null : logStats(engine, config, collect);
  return {
    observer: logging?.observer ?? engine ?? NO_OBSERVER,
    http: {
      contentType: registry.contentType,
      render: async () => (peers === null ? registry.metrics() : renderMerged(await collect())),
      observeHttp: (observation) => http.observe(observation),
      observeToolParser: (observation) => parsers?.observe(observation),
    },
    snapshot: () => snapshotOf(registry),
    close: () => logging?.close(),
  };
}

function defineEngineMetrics(registry: Registry, config: BaoConfig): EngineMetrics {
  const numEngines = config.parallel.dataParallelSize;
  defineCacheConfigInfo(registry, config, numEngines);
  return new EngineMetrics(registry, {
    modelName: config.model.servedModelName[0]!,
    numEngines,
    maxModelLen: config.model.maxModelLen,
    maxLoras: config.lora.enableLora ? config.lora.maxLoras : null,
    numSpeculativeTokens: config.speculative?.numSpeculativeTokens ?? null,
  });
}

function logStats(
  metrics: EngineMetrics,
  config: BaoConfig,
  collect: () => Promise<MetricsSnapshot[]>,
): { observer: EngineObserver; close(): void } {
  const numEngines = config.parallel.dataParallelSize;
  const statLogger = new StatLogger({
    numEngines,
    now: () => performance.now(),
    log: (line) => log.info(line),
    tokenTotals: async () => tokenTotals(await collect(), numEngines),
  });
  const timer = setInterval(() => statLogger.tick(), LOG_INTERVAL_MS);
  timer.unref();
  const observer = overrideObserver(metrics, {
    onStats: (coreIndex, stats) => {
      metrics.onStats(coreIndex, stats);
      statLogger.onStats(coreIndex, stats);
    },
  });
  return { observer, close: () => clearInterval(timer) };
}

/** By engine, over all front ends. */
export function tokenTotals(snapshots: readonly MetricsSnapshot[], numEngines: number): TokenTotals[] {
  const sumOf = (name: string, engine: number) =>
    snapshots
      .flatMap((metrics) => metrics.find((metric) => metric.name === name)?.values ?? [])
      .filter(({ labels }) => labels.engine === String(engine))
      .reduce((sum, { value }) => sum + value, 0);
  return Array.from({ length: numEngines }, (_, engine) => ({
    promptTokens: sumOf('vllm:prompt_tokens_total', engine),
    generationTokens: sumOf('vllm:generation_tokens_total', engine),
  }));
}

/** A registry's metrics as plain data: prom-client's own objects hold functions. */
async function snapshotOf(registry: Registry): Promise<MetricsSnapshot> {
  return JSON.parse(JSON.stringify(await registry.getMetricsAsJSON()));
}

/** The exposition of several front ends' metrics together. */
export function renderMerged(snapshots: readonly MetricsSnapshot[]): Promise<string> {
  return AggregatorRegistry.aggregate(snapshots as MetricsSnapshot[]).metrics();
}
