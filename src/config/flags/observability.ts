import { LOG_FORMATS, LOG_LEVELS } from '../../logging/logger.ts';
import type { FlagTable } from './flag.ts';

export const observabilityFlags = {
  'disable-log-stats': {
    type: 'boolean',
    default: false,
    help: 'No periodic line of throughput, queue and cache use in the log.',
  },
  'otlp-traces-endpoint': {
    type: 'string',
    default: null,
    metavar: 'URL',
    help: 'Where to send a trace span for each request: the URL of an OpenTelemetry collector for protobuf over HTTP, such as http://localhost:4318/v1/traces.',
  },
} as const satisfies FlagTable;

export const loggingFlags = {
  'log-level': {
    type: 'string',
    choices: LOG_LEVELS,
    default: 'info',
    env: 'BAO_LOG_LEVEL',
    help: 'Least severe messages to log.',
  },
  'log-format': {
    type: 'string',
    choices: LOG_FORMATS,
    default: 'text',
    env: 'BAO_LOG_FORMAT',
    help: 'Log lines for people (text) or one JSON object a line (json).',
  },
} as const satisfies FlagTable;
