import type { BaoConfig } from '../../config/bao-config.ts';
import { AsyncLLM, loadPreprocessing } from '../../engine/async-llm.ts';
import type { CoreLinkEnd } from '../../engine/core-link.ts';
import { EngineDeadError } from '../../engine/engine-client.ts';
import { type EngineObserver, overrideObserver } from '../../engine/observer.ts';
import type { AdapterTable } from '../../lora/adapter-table.ts';
import { createMetrics, type MetricsPeers, type ServerMetrics } from '../../metrics/server-metrics.ts';
import { addPluginRoutes } from '../../plugins/plugins.ts';
import type { RequestTracer } from '../../tracing/request-tracer.ts';
import { ApiError, errorResponse } from '../errors.ts';
import { chooseRequestId } from '../request-id.ts';
import type { SharedLoad } from '../shared-load.ts';
import { type FetchHandler, type Listener, listen } from './listener.ts';

const DRAIN_POLL_MS = 10;

/** Loaded only where traces are wanted: it is the largest dependency. */
async function openTracer(config: BaoConfig): Promise<RequestTracer | null> {
  const endpoint = config.observability.otlpTracesEndpoint;
  if (endpoint === null) return null;
  const { RequestTracer } = await import('../../tracing/request-tracer.ts');
  return new RequestTracer(endpoint, config.model.servedModelName[0]!);
}

function withTracing(observer: EngineObserver, tracer: RequestTracer | null): EngineObserver {
  if (tracer === null) return observer;
  return overrideObserver(observer, {
    onFinished: (coreIndex, sequence) => {
      observer.onFinished(coreIndex, sequence);
      tracer.onFinished(sequence);
    },
  });
}

/**
 * One HTTP front end: socket, app and the engine's client, in the main thread or in a Worker. `starting` from the bind until `open`;
 * `draining` from the first signal: what runs goes on, what comes is refused.
 */
export class ApiServer {
  private readonly listener: Listener;
  private engine: AsyncLLM | null = null;
  private metrics: ServerMetrics | null = null;
  private tracer: RequestTracer | null = null;
  private phase: 'starting' | 'open' | 'draining' = 'starting';

  constructor(
    private readonly config: BaoConfig,
    private readonly options: { reusePort: boolean; port?: number; load?: SharedLoad; adapters?: AdapterTable },
  ) {
    const starting: FetchHandler = (request) => this.unavailable(request, 'The server is starting.');
    this.listener = listen(config.frontend, starting, options);
  }

  get url(): string {
    return this.listener.url;
  }

  /** null for a socket file. */
  get port(): number | null {
    return this.listener.port;
  }

  /**
   * Loads tokenizer and app while the cores start, then lets requests in.
   *
   * @param cores settles when the engine cores are ready, with this front end's links to them and the configuration as they resolved it
   * @param peers the metrics of all front ends, where there are several
   */
  async open(
    cores: Promise<{ config: BaoConfig; links: CoreLinkEnd[] }>,
    peers: MetricsPeers | null = null,
  ): Promise<AsyncLLM> {
    const [{ createApp }, preprocessing, { config, links }] = await Promise.all([
      import('../app.ts'),
      loadPreprocessing(this.config),
      cores,
    ]);
    const metrics = createMetrics(config, peers);
    this.tracer = await openTracer(config);
    const engine = new AsyncLLM(config, links, preprocessing, withTracing(metrics.observer, this.tracer));
    const { load, adapters } = this.options;
    const app = createApp(engine, { metrics: metrics.http, routes: addPluginRoutes, load, adapters });
    this.engine = engine;
    this.metrics = metrics;
    this.phase = 'open';
    this.listener.setHandler(this.guard((request, server) => app.fetch(request, { server })));
    return engine;
  }

  /** This front end's part of the metrics. */
  metricsSnapshot(): Promise<unknown> {
    return this.metrics?.snapshot() ?? Promise.resolve([]);
  }

  /** Refuses new requests and waits until the running ones have ended, at most so long; those left get an error. */
  async drain(timeoutMs: number): Promise<void> {
    this.phase = 'draining';
    const deadline = performance.now() + timeoutMs;
    while (this.numRunning > 0 && performance.now() < deadline) await Bun.sleep(DRAIN_POLL_MS);
    this.engine?.failAll(new EngineDeadError('The server is shutting down.'));
    // Answers that were just finished or failed must still get out.
    await Bun.sleep(DRAIN_POLL_MS);
    this.metrics?.close();
    await this.tracer?.close();
    await this.listener.stop(true);
  }

  markDead(reason: string): void {
    this.engine?.markDead(reason);
  }

  private get numRunning(): number {
    return this.engine?.numUnfinishedRequests ?? 0;
  }

  /** While draining only what reads the server's state is answered. */
  private guard(handler: FetchHandler): FetchHandler {
    return (request, server) =>
      this.phase === 'draining' && !new URL(request.url).pathname.endsWith('/metrics')
        ? this.unavailable(request, 'The server is shutting down.')
        : handler(request, server);
  }

  private unavailable(request: Request, message: string): Response {
    const headers: Record<string, string> = { 'Retry-After': '1' };
    if (this.config.frontend.enableRequestIdHeaders) {
      headers['X-Request-Id'] = chooseRequestId(request.headers.get('X-Request-Id'));
    }
    return errorResponse(new ApiError(503, 'ServiceUnavailableError', message, null, headers));
  }
}
