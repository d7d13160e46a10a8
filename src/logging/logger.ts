import { fstatSync, writeSync } from 'node:fs';
import { formatJson, formatText, withoutSecrets } from './format.ts';
import { LOG_LEVELS, type LogFields, type LogLevel, type LogRecord } from './log-record.ts';

export { LOG_LEVELS, type LogFields, type LogLevel, type LogRecord } from './log-record.ts';

export const LOG_FORMATS = ['text', 'json'] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

export interface Logger {
  debug(text: string, fields?: LogFields): void;
  info(text: string, fields?: LogFields): void;
  warn(text: string, fields?: LogFields): void;
  error(text: string, fields?: LogFields): void;
}

export interface LoggingOptions {
  level: LogLevel;
  format: LogFormat;
  thread: string | null;
  color: boolean;
  /** Values that no line may hold, wherever a client has put them: the server's own keys. */
  secrets: readonly string[];
  /** Where finished lines go; the default is standard error, written synchronously, so that none is lost at exit and those up to PIPE_BUF (4096 bytes on Linux) of several threads never mix. */
  write: (line: string) => void;
}

const options: LoggingOptions = {
  level: 'info',
  format: 'text',
  thread: null,
  color: !process.env.NO_COLOR && isTerminal(2),
  secrets: [],
  write: writeToStderr,
};

/** Sets how this thread logs; what is left out stays as it is. Each Worker calls it once, with its own thread name. Returns the options before. */
export function configureLogging(changes: Partial<LoggingOptions>): LoggingOptions {
  const before = { ...options };
  Object.assign(options, changes);
  return before;
}

/** The logger of a component. Cheap; make one per module: `const log = logger('scheduler')`. */
export function logger(name: string): Logger {
  return {
    debug: (text, fields) => emit('debug', name, text, fields),
    info: (text, fields) => emit('info', name, text, fields),
    warn: (text, fields) => emit('warning', name, text, fields),
    error: (text, fields) => emit('error', name, text, fields),
  };
}

function emit(level: LogLevel, name: string, text: string, fields: LogFields = {}): void {
  if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(options.level)) return;
  const record: LogRecord = { time: new Date(), level, name, thread: options.thread, text, fields };
  const line = options.format === 'json' ? formatJson(record) : formatText(record, options.color);
  options.write(withoutSecrets(line, options.secrets));
}

/** `process.stderr.isTTY` would do, but loads Bun's terminal streams: 15 ms of a start. A pipe or a file is no character device. */
function isTerminal(descriptor: number): boolean {
  try {
    return fstatSync(descriptor).isCharacterDevice();
  } catch {
    return false;
  }
}

function writeToStderr(line: string): void {
  const bytes = Buffer.from(line);
  let offset = 0;
  while (offset < bytes.length) {
    try {
      offset += writeSync(2, bytes, offset);
    } catch (error) {
      // A pipe that is full for the moment: try again. Any other failure (reader gone) leaves nobody to tell.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}
