import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { formatJson, formatText } from '../../src/logging/format.ts';
import { configureLogging, type LoggingOptions, type LogRecord, logger } from '../../src/logging/logger.ts';

const record: LogRecord = {
  time: new Date(2026, 10, 23, 19, 0, 5),
  level: 'info',
  name: 'scheduler',
  thread: null,
  text: 'step done',
  fields: {},
};

describe('text lines', () => {
  test('have level, time, component and text, in vLLM’s manner', () => {
    expect(formatText(record, false)).toBe('INFO 11-23 19:00:05 [scheduler] step done\n');
  });

  test('show fields as key=value, quoted only where a reader could misread them', () => {
    const fields = { tokens: 12, id: 'cmpl-1', reason: 'too long', ids: [1, 2], none: null, absent: undefined };
    expect(formatText({ ...record, fields }, false)).toBe(
      'INFO 11-23 19:00:05 [scheduler] step done tokens=12 id=cmpl-1 reason="too long" ids=[1,2] none=null\n',
    );
  });

  test('name the thread, and are coloured only when asked', () => {
    expect(formatText({ ...record, thread: 'core 1' }, false)).toStartWith('(core 1) INFO 11-23');
    expect(formatText(record, false)).not.toContain('\x1b');
    expect(formatText(record, true)).toContain('\x1b[32m');
  });

  test('put an error’s stack below', () => {
    const error = new Error('broken');
    const [line, next] = formatText({ ...record, fields: { error } }, false).split('\n');
    expect(line).toBe('INFO 11-23 19:00:05 [scheduler] step done');
    expect(next).toContain('broken');
  });

  test('hold no control characters of a client', () => {
    expect(formatText({ ...record, text: 'a\x1b[2Jb' }, false)).toContain('a\\x1b[2Jb');
    expect(formatText({ ...record, fields: { path: '/a\nERROR forged' } }, false).split('\n')).toHaveLength(2);
    const fields = { error: new Error('b\nERROR forged too') };
    expect(formatText({ ...record, text: 'a\nERROR forged', fields }, false)).not.toMatch(/^ERROR/m);
  });
});

describe('JSON lines', () => {
  test('are one object each, with the fields as members', () => {
    const line = formatJson({ ...record, thread: 'core 0', fields: { tokens: 3, seed: 7n } });
    expect(line.endsWith('}\n')).toBe(true);
    expect(JSON.parse(line)).toEqual({
      time: record.time.toISOString(),
      level: 'info',
      logger: 'scheduler',
      thread: 'core 0',
      message: 'step done',
      tokens: 3,
      seed: '7',
    });
  });

  test('carry errors with their stack, and no field can forge level or time', () => {
    const parsed = JSON.parse(formatJson({ ...record, fields: { level: 'error', error: new TypeError('no') } }));
    expect(parsed.level).toBe('info');
    expect(parsed.error).toMatchObject({ name: 'TypeError', message: 'no' });
    expect(parsed.error.stack).toContain('TypeError');
  });
});

test.each(['apiKey', 'api_key', 'hfToken', 'Authorization'])(
  'the value of %s is never written, at any depth',
  (name) => {
    for (const fields of [{ [name]: 'sk-123' }, { config: { frontend: { [name]: ['sk-123'] } } }]) {
      expect(formatText({ ...record, fields }, false)).not.toContain('sk-123');
      expect(formatJson({ ...record, fields })).not.toContain('sk-123');
    }
  },
);

describe('a logger', () => {
  const lines: string[] = [];
  let before: LoggingOptions;
  beforeEach(() => {
    lines.length = 0;
    before = configureLogging({ level: 'info', format: 'text', color: false, write: (line) => lines.push(line) });
  });
  afterEach(() => {
    configureLogging(before);
  });

  test('drops what is below the level', () => {
    const log = logger('test');
    log.debug('a');
    log.info('b');
    configureLogging({ level: 'error' });
    log.warn('c');
    log.error('d');
    expect(lines.map((line) => line.slice(-2, -1))).toEqual(['b', 'd']);
  });

  test('follows the format and thread set after it was made', () => {
    const log = logger('test');
    configureLogging({ format: 'json', thread: 'api 1' });
    log.warn('careful', { n: 1 });
    expect(JSON.parse(lines[0]!)).toMatchObject({ level: 'warning', thread: 'api 1', message: 'careful', n: 1 });
  });
});

test('the values of secrets are masked wherever they are, short ones excepted', () => {
  const lines: string[] = [];
  const write = (line: string) => lines.push(line);
  const before = configureLogging({ level: 'info', format: 'text', color: false, secrets: ['sk-12345', 'in'], write });
  try {
    logger('test').info('asked by sk-12345', { requestId: 'sk-12345-1', error: new Error('no sk-12345') });
    configureLogging({ format: 'json' });
    logger('test').warn('again', { prompt: 'my key is sk-12345' });
  } finally {
    configureLogging(before);
  }
  expect(lines.join('')).not.toContain('sk-12345');
  expect(lines[0]).toContain('asked by *** requestId=***-1');
  expect(JSON.parse(lines[1]!).prompt).toBe('my key is ***');
});

test('lines of several Workers reach standard error whole', async () => {
  const child = Bun.spawn([process.execPath, new URL('./shouting-workers.ts', import.meta.url).pathname], {
    stderr: 'pipe',
    stdout: 'ignore',
  });
  const lines = (await new Response(child.stderr).text()).trim().split('\n');
  expect(await child.exited).toBe(0);
  const byThread = Map.groupBy(
    lines.map((line) => JSON.parse(line)),
    ({ thread }) => thread,
  );
  expect([...byThread.values()].map((records) => records.length)).toEqual([50, 50]);
  for (const { message } of [...byThread.values()].flat()) expect(message).toHaveLength(3000);
});
