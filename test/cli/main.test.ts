import { describe, expect, test } from 'bun:test';
import { resolve } from 'node:path';
import packageJson from '../../package.json' with { type: 'json' };
import { explainFailure } from '../../src/cli/run-command.ts';
import { ConfigError, UsageError } from '../../src/config/config-error.ts';
import { ValidationError } from '../../src/errors/validation-error.ts';
import { LoadError } from '../../src/loader/load-error.ts';

const MAIN = resolve(import.meta.dir, '../../src/main.ts');

async function bao(...argv: string[]) {
  const child = Bun.spawn([process.execPath, MAIN, ...argv], { stdout: 'pipe', stderr: 'pipe', stdin: 'ignore' });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { stdout, stderr, exitCode };
}

test('bao --version', async () => {
  expect(await bao('--version')).toEqual({ stdout: `${packageJson.version}\n`, stderr: '', exitCode: 0 });
});

test('bao and bao --help list the commands', async () => {
  const { stdout, exitCode } = await bao('--help');
  expect(exitCode).toBe(0);
  expect(stdout).toContain('serve [MODEL] [flags]');
  expect((await bao()).stdout).toBe(stdout);
});

test('bao serve --help=max-model-len', async () => {
  const { stdout, exitCode } = await bao('serve', '--help=max-model-len');
  expect(exitCode).toBe(0);
  expect(stdout).toContain('--max-model-len TOKENS');
});

test('a reader that has had enough ends it without a word', async () => {
  const child = Bun.spawn(['sh', '-c', `"${process.execPath}" "${MAIN}" collect-env | true`], { stderr: 'pipe' });
  expect(await new Response(child.stderr).text()).toBe('');
});

describe('an operator’s mistake is one sentence and no stack', () => {
  test.each<[string[], number, string]>([
    [['servr'], 2, 'bao: Unknown command "servr": did you mean bao serve?\n'],
    [['serve', '--prot', '1'], 2, 'bao: Unknown option --prot: did you mean --port?\n'],
    [
      ['serve', '--uds', '/tmp/a', '--api-server-count', '2', '--log-level', 'error'],
      2,
      'bao: --uds needs --api-server-count 1: a socket file is listened on by one thread.\n',
    ],
    [
      ['serve', '--max-model-len', '5000', '--log-level', 'error'],
      1,
      "bao: --max-model-len 5000 is more than the 4096 tokens that the model's config.json allows (max_position_embeddings 4096, rope default).\n",
    ],
  ])('%j', async (argv, exitCode, stderr) => {
    expect(await bao(...argv)).toEqual({ stdout: '', stderr, exitCode });
  });

  test('by the kind of error', () => {
    expect(explainFailure(new UsageError('a.'))).toEqual({ exitCode: 2, text: 'bao: a.' });
    expect(explainFailure(new ConfigError('b.'))).toEqual({ exitCode: 1, text: 'bao: b.' });
    expect(explainFailure(new LoadError('c.'))).toEqual({ exitCode: 1, text: 'bao: c.' });
    expect(explainFailure(new ValidationError('d.'))).toEqual({ exitCode: 1, text: 'bao: d.' });
    const bug = explainFailure(new TypeError('oops'));
    expect(bug.exitCode).toBe(1);
    expect(bug.text).toContain('oops');
    expect(bug.text).toContain('main.test.ts');
  });
});
