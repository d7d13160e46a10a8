import { LOG_FORMATS, LOG_LEVELS } from '../../logging/logger.ts';
import type { FlagTable } from './flag.ts';

export const observabilityFlags = {
  'disable-log-stats': {
    type: 'boolean',
    default: false,
    help: 'No periodic line of throughput, queue and cache use in the log.',
  },
  'enable-mfu-metrics': {
    type: 'boolean',
    default: false,
    help: 'Estimate what each step computes and how many bytes it reads and writes, for the metrics vllm:estimated_*_per_gpu_total and a periodic line in the log.',
  },
  'otlp-traces-endpoint': {
    type: 'string',
    default: null,
    metavar: 'URL',
    help: 'Where to send a trace span for each request: the URL of an OpenTelemetry collector for protobuf over HTTP, such as http://localhost:4318/v1/traces.',
  },
  'enable-logging-iteration-details': {
    type: 'boolean',
    default: false,
    help: 'A line in the log for each step: its requests and tokens, and how long it took.',
  },
  'log-slow-steps': {
    type: 'float',
    default: null,
    min: 0,
    metavar: 'SECONDS',
    help: 'Warn of steps that take longer, with what they were made of and how full the engine was. By default no step is told of.',
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
