import { AggregatorRegistry, type MetricObjectWithValues, type MetricValue, Registry } from 'prom-client';
import type { BaoConfig } from '../config/bao-config.ts';
import { type EngineObserver, NO_OBSERVER } from '../engine/observer.ts';
import { logger } from '../logging/logger.ts';
import { defineCacheConfigInfo } from './cache-config-info.ts';
import { EngineMetrics } from './engine-metrics.ts';
import { HttpMetrics, type HttpObservation } from './http-metrics.ts';
import { ParserMetrics, type ToolParserObservation } from './parser-metrics.ts';
import { defineProcessMetrics } from './process-metrics.ts';
import { StatLogger } from './stat-logger.ts';

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

/**
 * Makes a front end's metrics and starts the periodic log line; with `--disable-log-stats` the engine is not observed at all.
 *
 * @param collect snapshots of all front ends, this one included, where there are several: /metrics then shows their merger
 */
export function createMetrics(config: BaoConfig, collect: (() => Promise<unknown[]>) | null = null): ServerMetrics {
  const registry = new Registry();
  const http = new HttpMetrics(registry);
  defineProcessMetrics(registry);
  const stats = config.observability.disableLogStats ? null : observeEngine(registry, config);
  const parsers = stats === null ? null : new ParserMetrics(registry, config.model.servedModelName[0]!);
  const snapshot = () => snapshotOf(registry);
  return {
    observer: stats?.observer ?? NO_OBSERVER,
    http: {
      contentType: registry.contentType,
      render: async () =>
        collect === null ? registry.metrics() : renderMerged((await collect()) as MetricsSnapshot[]),
      observeHttp: (observation) => http.observe(observation),
      observeToolParser: (observation) => parsers?.observe(observation),
    },
    snapshot,
    close: () => stats?.close(),
  };
}

function observeEngine(registry: Registry, config: BaoConfig): { observer: EngineObserver; close(): void } {
  const numEngines = config.parallel.dataParallelSize;
  const metrics = new EngineMetrics(registry, {
    modelName: config.model.servedModelName[0]!,
    numEngines,
    maxModelLen: config.model.maxModelLen,
    maxLoras: config.lora.enableLora ? config.lora.maxLoras : null,
  });
  defineCacheConfigInfo(registry, config, numEngines);
  const statLogger = new StatLogger({ numEngines, now: () => performance.now(), log: (line) => log.info(line) });
  const timer = setInterval(() => statLogger.tick(), LOG_INTERVAL_MS);
  timer.unref();
  return {
    observer: {
      onStep: (coreIndex, step) => {
        metrics.onStep(coreIndex, step);
        statLogger.onStep(coreIndex, step);
      },
      onFirstToken: (coreIndex, times) => metrics.onFirstToken(coreIndex, times),
      onInterTokenLatency: (coreIndex, latencyMs) => metrics.onInterTokenLatency(coreIndex, latencyMs),
      onFinished: (coreIndex, sequence) => metrics.onFinished(coreIndex, sequence),
      onStats: (coreIndex, schedulerStats) => {
        metrics.onStats(coreIndex, schedulerStats);
        statLogger.onStats(coreIndex, schedulerStats);
      },
      onRejected: (reason) => metrics.onRejected(reason),
    },
    close: () => clearInterval(timer),
  };
}

/** A registry's metrics as plain data: prom-client's own objects hold functions. */
async function snapshotOf(registry: Registry): Promise<MetricsSnapshot> {
  return JSON.parse(JSON.stringify(await registry.getMetricsAsJSON()));
}

/** The exposition of several front ends' metrics together. */
export function renderMerged(snapshots: readonly MetricsSnapshot[]): Promise<string> {
  return AggregatorRegistry.aggregate(snapshots as MetricsSnapshot[]).metrics();
}
