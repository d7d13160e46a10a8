import { afterEach, beforeEach, expect, test } from 'bun:test';
import { ExportResultCode } from '@opentelemetry/core';
import { configureLogging, type LoggingOptions } from '../../src/logging/logger.ts';
import { ReportingExporter } from '../../src/tracing/reporting-exporter.ts';

const lines: string[] = [];
let before: LoggingOptions;
beforeEach(() => {
  lines.length = 0;
  before = configureLogging({ level: 'info', format: 'text', write: (line) => lines.push(line) });
});
afterEach(() => {
  configureLogging(before);
});

test('lost spans are told once, with the reason, and so is that they arrive again', () => {
  const results = ['Not Found', 'Not Found', null, null, 'gone'];
  const exporter = new ReportingExporter(
    {
      export: (_, done) => {
        const message = results.shift();
        done(
          message == null
            ? { code: ExportResultCode.SUCCESS }
            : { code: ExportResultCode.FAILED, error: new Error(message) },
        );
      },
      shutdown: async () => {},
    },
    'http://collector/v1/traces',
  );
  const codes: number[] = [];
  for (let i = 0; i < 5; i++) exporter.export([], ({ code }) => codes.push(code));
  const { SUCCESS, FAILED } = ExportResultCode;
  expect(codes).toEqual([FAILED, FAILED, SUCCESS, SUCCESS, FAILED]);
  expect(lines).toHaveLength(3);
  expect(lines[0]).toContain('Traces are lost: http://collector/v1/traces does not take them: Not Found');
  expect(lines[1]).toContain('Traces arrive again');
  expect(lines[2]).toContain('does not take them: gone');
});
