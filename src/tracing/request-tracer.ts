import { type Attributes, type Context, context, ROOT_CONTEXT, SpanKind, type Tracer } from '@opentelemetry/api';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { defaultResource, detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources';
import { BatchSpanProcessor, TracerProvider } from '@opentelemetry/sdk-trace';
import type { TraceHeaders } from '../engine/engine-client.ts';
import type { FinishedSequence } from '../engine/observer.ts';
import { logger } from '../logging/logger.ts';
import type { SamplingParams } from '../sampling/sampling-params.ts';
import { ReportingExporter } from './reporting-exporter.ts';

const log = logger('tracing');

/** The exporter tries again for longer than a server should take to end. */
const CLOSE_TIMEOUT_MS = 2000;

const propagator = new W3CTraceContextPropagator();
const HEADERS = {
  get: (headers: TraceHeaders, name: string) => headers[name as keyof TraceHeaders] ?? undefined,
  keys: (headers: TraceHeaders) => Object.keys(headers),
};

/**
 * One span for each finished sequence, as vLLM's `llm_request`: same name, kind and attributes, times in seconds, child of the client's span
 * where the request brought a W3C trace context. Spans go to an OTLP collector in batches, as protobuf over HTTP; what can't be
 * delivered is dropped by the exporter after its retries, and told in the log. OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES and OTEL_EXPORTER_OTLP_* are honoured.
 */
export class RequestTracer {
  private readonly provider: TracerProvider;
  private readonly tracer: Tracer;

  /** @param endpoint full URL of the collector's traces path, such as http://localhost:4318/v1/traces */
  constructor(
    endpoint: string,
    private readonly modelName: string,
  ) {
    const resource = defaultResource()
      .merge(resourceFromAttributes({ 'service.name': 'bao' }))
      .merge(detectResources({ detectors: [envDetector] }));
    const exporter = new ReportingExporter(new OTLPTraceExporter({ url: endpoint }), endpoint);
    this.provider = new TracerProvider({ resource, spanProcessors: [new BatchSpanProcessor({ exporter })] });
    this.tracer = this.provider.getTracer('bao.llm_engine');
  }

  onFinished({ request, params, times, finishedMs, numGenerationTokens }: FinishedSequence): void {
    const { promptTokenIds, requestId } = request;
    const span = this.tracer.startSpan(
      'llm_request',
      { kind: SpanKind.SERVER, startTime: times.arrivalMs },
      parentContext(request.traceHeaders ?? null),
    );
    const seconds = (from: number, to: number) => (from > 0 && to > 0 ? Math.max(0, to - from) / 1000 : 0);
    span.setAttributes({
      'gen_ai.response.model': this.modelName,
      'gen_ai.request.id': requestId,
      ...(params === null ? {} : samplingAttributes(params)),
      'gen_ai.usage.prompt_tokens': promptTokenIds.length,
      'gen_ai.usage.completion_tokens': numGenerationTokens,
      'gen_ai.latency.time_in_queue': seconds(times.arrivalMs, times.firstScheduledMs),
      'gen_ai.latency.time_to_first_token': seconds(times.arrivalMs, times.firstTokenMs),
      'gen_ai.latency.e2e': seconds(times.arrivalMs, finishedMs),
      'gen_ai.latency.time_in_model_prefill': seconds(times.firstScheduledMs, times.firstTokenMs),
      'gen_ai.latency.time_in_model_decode': seconds(times.firstTokenMs, times.lastTokenMs),
      'gen_ai.latency.time_in_model_inference': seconds(times.firstScheduledMs, times.lastTokenMs),
    });
    span.end(finishedMs);
  }

  /** Sends what waits. Never throws: a collector that is gone must not keep a server from ending. */
  async close(): Promise<void> {
    const delivered = this.provider.shutdown().then(
      () => true,
      () => false,
    );
    if (!(await Promise.race([delivered, Bun.sleep(CLOSE_TIMEOUT_MS)]))) log.warn('Some traces were not delivered.');
  }
}

function samplingAttributes({ temperature, topP, maxTokens, n }: SamplingParams): Attributes {
  return {
    'gen_ai.request.temperature': temperature,
    'gen_ai.request.top_p': topP,
    'gen_ai.request.max_tokens': maxTokens,
    'gen_ai.request.n': n,
  };
}

function parentContext(headers: TraceHeaders | null): Context {
  return headers === null ? ROOT_CONTEXT : propagator.extract(context.active(), headers, HEADERS);
}
