import { type ExportResult, ExportResultCode } from '@opentelemetry/core';
import type { ReadableSpan, SpanExporter } from '@opentelemetry/sdk-trace';
import { logger } from '../logging/logger.ts';

const log = logger('tracing');

/** Tells in the log when spans begin to be lost, and when they arrive again. */
export class ReportingExporter implements SpanExporter {
  private isFailing = false;

  constructor(
    private readonly exporter: SpanExporter,
    private readonly endpoint: string,
  ) {}

  export(spans: ReadableSpan[], resultCallback: (result: ExportResult) => void): void {
    this.exporter.export(spans, (result) => {
      const failed = result.code !== ExportResultCode.SUCCESS;
      if (failed && !this.isFailing) {
        log.warn(`Traces are lost: ${this.endpoint} does not take them: ${result.error?.message ?? 'unknown error'}`);
      }
      if (!failed && this.isFailing) log.info('Traces arrive again');
      this.isFailing = failed;
      resultCallback(result);
    });
  }

  shutdown(): Promise<void> {
    return this.exporter.shutdown();
  }

  async forceFlush(): Promise<void> {
    await this.exporter.forceFlush?.();
  }
}
