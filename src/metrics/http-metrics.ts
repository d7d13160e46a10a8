import { Counter, type Registry, Summary } from 'prom-client';
import { BoundHistogram, type HistogramChild } from './bound-histogram.ts';
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

/** HTTP metrics as vLLM's instrumentation names them: status codes grouped ("2xx"), routes by their pattern, "none" for those that don't exist. */
export class HttpMetrics {
  private readonly requests: Counter<'handler' | 'method' | 'status'>;
  private readonly requestSize: Summary<'handler'>;
  private readonly responseSize: Summary<'handler'>;
  private readonly duration: BoundHistogram;
  private readonly durations = new Map<string, HistogramChild>();
  private readonly durationHighr: HistogramChild;

  constructor(registry: Registry) {
    const registers = [registry];
    this.requests = new Counter({
      name: 'http_requests_total',
      help: 'Requests by method, status and route.',
      labelNames: ['handler', 'method', 'status'],
      registers,
    });
    const size = (name: string, help: string) =>
      // No quantiles: sum and count are all that can be merged.
      new Summary({ name, help, labelNames: ['handler'], percentiles: [], registers });
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
    this.requests.inc({ handler, method, status: `${Math.floor(status / 100)}xx` });
    // A header may claim any length.
    if (Number.isFinite(requestBytes)) this.requestSize.observe({ handler }, requestBytes);
    this.responseSize.observe({ handler }, responseBytes);
    this.durationHighr.observe(durationMs / 1000);
    this.durationOf(handler, method).observe(durationMs / 1000);
  }

  private durationOf(handler: string, method: string): HistogramChild {
    const key = `${method} ${handler}`;
    let child = this.durations.get(key);
    if (child === undefined) {
      child = this.duration.child({ handler, method });
      this.durations.set(key, child);
    }
    return child;
  }
}
