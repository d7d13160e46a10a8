import type { LogFields, LogLevel, LogRecord } from './log-record.ts';

const MASK = '***';
/** A shorter one is no secret for long, and would mask parts of common words. */
const SECRET_LENGTH = 6;
/** Compared without case, dashes and underscores. */
const SECRET_NAMES = new Set(['apikey', 'hftoken', 'authorization', 'password', 'secret', 'cookie', 'sslkey']);

const COLORS: Record<LogLevel, string> = {
  debug: '\x1b[37m',
  info: '\x1b[32m',
  warning: '\x1b[33m',
  error: '\x1b[31m',
};
const DIM = '\x1b[90m';
const RESET = '\x1b[0m';

/** One line in vLLM's manner: `INFO 11-23 19:00:00 [scheduler] text key=value`; an Error among the fields adds its stack below. */
export function formatText(record: LogRecord, color: boolean): string {
  const head = `${record.level.toUpperCase()} ${clock(record.time)} [${record.name}]`;
  const thread = record.thread === null ? '' : `(${record.thread}) `;
  const painted = color ? `${COLORS[record.level]}${thread}${head}${RESET}` : `${thread}${head}`;

  const pairs: string[] = [];
  const stacks: string[] = [];
  for (const [key, value] of visibleFields(record.fields)) {
    if (value instanceof Error) stacks.push(value.stack ?? `${value.name}: ${value.message}`);
    else pairs.push(color ? `${DIM}${key}=${RESET}${textValue(value)}` : `${key}=${textValue(value)}`);
  }
  const lines = [[painted, escapeControls(record.text), ...pairs].join(' '), ...stacks].join('\n');
  // Text may hold what a client sent: a line that is not indented begins a record.
  return `${lines.replace(/\n(?=\S)/g, '\n  ')}\n`;
}

/** One JSON object on one line: time (ISO 8601, UTC), level, logger, thread if any, message, then the fields. */
export function formatJson(record: LogRecord): string {
  const head = {
    time: record.time.toISOString(),
    level: record.level,
    logger: record.name,
    ...(record.thread === null ? {} : { thread: record.thread }),
    message: record.text,
  };
  // The head's names win: a field can't forge the level or the time.
  return `${JSON.stringify({ ...Object.fromEntries(visibleFields(record.fields)), ...head }, jsonValue)}\n`;
}

/** @returns the line with each of `secrets` masked */
export function withoutSecrets(line: string, secrets: readonly string[]): string {
  return secrets
    .filter((secret) => secret.length >= SECRET_LENGTH)
    .reduce((masked, secret) => masked.replaceAll(secret, MASK), line);
}

/** True for a field or flag name whose value must never be shown. */
function isSecretName(name: string): boolean {
  return SECRET_NAMES.has(name.replace(/[-_]/g, '').toLowerCase());
}

function visibleFields(fields: LogFields): [string, unknown][] {
  return Object.entries(fields)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => [key, isSecretName(key) && value !== null ? MASK : value]);
}

function clock(time: Date): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const date = `${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${date} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

function textValue(value: unknown): string {
  if (typeof value === 'string') return /^[^\s"=\p{Cc}]+$/u.test(value) ? value : JSON.stringify(value);
  if (typeof value === 'object' && value !== null) return JSON.stringify(value, jsonValue);
  return String(value);
}

function jsonValue(key: string, value: unknown): unknown {
  if (key !== '' && isSecretName(key) && value !== null) return MASK;
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Error) return { name: value.name, message: value.message, stack: value.stack };
  return value;
}

/** Text may hold what a client sent: no terminal escapes. */
function escapeControls(text: string): string {
  return text.replace(/[\p{Cc}]/gu, (character) =>
    character === '\n' || character === '\t'
      ? character
      : `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}
