import { Counter, type Registry } from 'prom-client';
import { BoundHistogram, type HistogramChild } from './bound-histogram.ts';
import { BoundSummary, type SummaryChild } from './bound-summary.ts';
import { HTTP_DURATION_BUCKETS, HTTP_DURATION_HIGHR_BUCKETS } from './buckets.ts';

/** One answered request, for the http_* metrics. */
export interface HttpObservation {
  method: string;
  /** The route's pattern ("/v1/models/:id"), 'none' where no route matched: paths that clients invent must not become labels. */
  handler: string;
  status: number;
  /** Until the answer's head; a stream goes on after it. */
  durationMs: number;
  /** From Content-Length; 0 where it is unknown. */
  requestBytes: number;
  responseBytes: number;
}

/** Routes that are asked all the time and say nothing about the load. */
const EXCLUDED_HANDLERS = new Set(['/metrics', '/health', '/load', '/ping', '/version', '/server_info']);

/** What is counted of a route and a method. */
interface RouteCounts {
  readonly labels: { handler: string; method: string };
  /** Answers by the hundred of their status ("2xx"). */
  readonly answers: Record<string, number>;
  readonly requestSize: SummaryChild;
  readonly responseSize: SummaryChild;
  readonly duration: HistogramChild;
}

/**
 * HTTP metrics as vLLM's instrumentation names them: status codes grouped ("2xx"), routes by their pattern, "none" for those that don't exist.
 * Counted here, and written to prom-client when a scraper asks: prom-client looks through the labels each time.
 */
export class HttpMetrics {
  private readonly requestSize: BoundSummary;
  private readonly responseSize: BoundSummary;
  private readonly duration: BoundHistogram;
  private readonly durationHighr: HistogramChild;
  /** By method and handler. */
  private readonly routes = new Map<string, RouteCounts>();
  /** Requests of any method, by handler. */
  private readonly sizes = new Map<string, Pick<RouteCounts, 'requestSize' | 'responseSize'>>();

  constructor(registry: Registry) {
    const registers = [registry];
    this.defineRequests(registers);
    const size = (name: string, help: string) => new BoundSummary({ name, help, labelNames: ['handler'], registers });
    this.requestSize = size('http_request_size_bytes', 'Bytes of request bodies by route.');
    this.responseSize = size('http_response_size_bytes', 'Bytes of answers by route.');
    this.durationHighr = new BoundHistogram({
      name: 'http_request_duration_highr_seconds',
      help: 'Latency of all routes, in many buckets.',
      buckets: HTTP_DURATION_HIGHR_BUCKETS,
      registers,
    }).child();
    this.duration = new BoundHistogram({
      name: 'http_request_duration_seconds',
      help: 'Latency by route, in few buckets.',
      labelNames: ['handler', 'method'],
      buckets: HTTP_DURATION_BUCKETS,
      registers,
    });
  }

  observe({ handler, method, status, requestBytes, responseBytes, durationMs }: HttpObservation): void {
    if (EXCLUDED_HANDLERS.has(handler)) return;
    const route = this.routeOf(handler, method);
    const group = `${Math.floor(status / 100)}xx`;
    route.answers[group] = (route.answers[group] ?? 0) + 1;
    // A header may claim any length.
    if (Number.isFinite(requestBytes)) route.requestSize.observe(requestBytes);
    route.responseSize.observe(responseBytes);
    this.durationHighr.observe(durationMs / 1000);
    route.duration.observe(durationMs / 1000);
  }

  private defineRequests(registers: Registry[]): void {
    const { routes } = this;
    new Counter({
      name: 'http_requests_total',
      help: 'Requests by method, status and route.',
      labelNames: ['handler', 'method', 'status'],
      registers,
      collect() {
        this.reset();
        for (const { labels, answers } of routes.values()) {
          for (const [status, count] of Object.entries(answers)) this.inc({ ...labels, status }, count);
        }
      },
    });
  }

  private routeOf(handler: string, method: string): RouteCounts {
    const key = `${method} ${handler}`;
    let route = this.routes.get(key);
    if (route === undefined) {
      const labels = { handler, method };
      route = { labels, answers: {}, ...this.sizesOf(handler), duration: this.duration.child(labels) };
      this.routes.set(key, route);
    }
    return route;
  }

  private sizesOf(handler: string): Pick<RouteCounts, 'requestSize' | 'responseSize'> {
    let sizes = this.sizes.get(handler);
    if (sizes === undefined) {
      sizes = { requestSize: this.requestSize.child({ handler }), responseSize: this.responseSize.child({ handler }) };
      this.sizes.set(handler, sizes);
    }
    return sizes;
  }
}
