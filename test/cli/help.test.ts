import { describe, expect, test } from 'bun:test';
import { serveHelp } from '../../src/cli/help.ts';
import { FLAG_GROUPS, FLAGS } from '../../src/config/flags/index.ts';

describe('bao serve --help', () => {
  test('has every flag under its config, in lines that fit', async () => {
    for (const width of [80, 120]) {
      const help = await serveHelp('', width);
      for (const { config } of Object.values(FLAG_GROUPS)) expect(help).toContain(`\n${config}: `);
      for (const { name, spec } of FLAGS)
        expect(help).toMatch(new RegExp(spec.type === 'boolean' ? `--\\[no-\\]${name}\\b` : `--${name}[ ,]`));
      const body = help.slice(help.indexOf('\nOptions'));
      expect(Math.max(...body.split('\n').map((line) => line.length))).toBeLessThanOrEqual(width);
    }
    expect(await serveHelp('all', 80)).toBe(await serveHelp('', 80));
  });

  test('of one config', async () => {
    expect(await serveHelp('loggingconfig', 100)).toBe(
      [
        'LoggingConfig: The log.',
        '  --log-level TEXT                Least severe messages to log. (one of debug, info, warning, error;',
        '                                  default: info; env: BAO_LOG_LEVEL)',
        '  --log-format text|json          Log lines for people (text) or one JSON object a line (json).',
        '                                  (default: text; env: BAO_LOG_FORMAT)',
        '',
      ].join('\n'),
    );
    const scheduler = await serveHelp('SchedulerConfig', 80);
    expect(scheduler).toContain('--max-num-batched-tokens');
    expect(scheduler).not.toContain('--port');
  });

  test('of one flag, however it is written, and of all that have a word in their name', async () => {
    const one = await serveHelp('max-model-len', 80);
    expect(one).toStartWith('ModelConfig: ');
    expect(one.match(/^ {2}-/gm)).toHaveLength(1);
    expect(await serveHelp('--max_model_len', 80)).toBe(one);
    expect((await serveHelp('ssl', 80)).match(/--ssl-[a-z-]+/g)).toContain('--ssl-keyfile');
    // "model" is a flag itself, so that it alone is shown.
    expect((await serveHelp('model', 80)).match(/^ {2}-/gm)).toHaveLength(1);
  });

  test('lists the configs', async () => {
    const lines = (await serveHelp('listgroup', 80)).trimEnd().split('\n');
    expect(lines).toHaveLength(Object.keys(FLAG_GROUPS).length);
    expect(lines).toContain('  SchedulerConfig                 What goes into a step.');
  });

  test('suggests when nothing has the name', async () => {
    expect(serveHelp('SchedlerConfig', 80)).rejects.toThrow(
      'No flag or config is named "SchedlerConfig": did you mean --help=SchedulerConfig?',
    );
    expect(serveHelp('qqqq', 80)).rejects.toThrow('--help=listgroup lists the configs');
  });
});
