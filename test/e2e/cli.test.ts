import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type BaoProcess, startBao } from './bao-process.ts';

const MAIN = resolve(import.meta.dir, '../../src/main.ts');
const folder = mkdtempSync(join(tmpdir(), 'bao-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

async function bao(argv: string[], input = '', env: Record<string, string> = {}) {
  const child = Bun.spawn([process.execPath, MAIN, ...argv], {
    stdin: new Blob([input]),
    stdout: 'pipe',
    stderr: 'pipe',
    env: { ...process.env, ...env },
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { stdout, stderr, exitCode };
}

const FRANCE = 'What is the capital of France?';

describe('by themselves', () => {
  test('chat answers each line of a pipe, and nothing else is printed', async () => {
    const { stdout, stderr, exitCode } = await bao(['chat', '--temperature', '0'], `${FRANCE}\n\nAnd of Italy?\n`);
    expect({ stderr, exitCode }).toEqual({ stderr: '', exitCode: 0 });
    const lines = stdout.trim().split('\n');
    expect(lines).toHaveLength(2);
    expect(lines[0]).toContain('Paris');
  });

  test('complete goes on from a text', async () => {
    const { stdout, exitCode } = await bao(
      ['complete', 'demo', '-q', 'The capital of France is', '--max-tokens', '4', '--temperature', '0'],
      '',
      { BAO_API_KEY: 'for-servers' },
    );
    expect(stdout).toContain('Paris');
    expect(exitCode).toBe(0);
  });

  test('a refusal is one sentence', async () => {
    const long = await bao(['complete', '-q', 'word '.repeat(9000)]);
    expect(long).toMatchObject({ stdout: '', exitCode: 1 });
    expect(long.stderr).toStartWith('bao: ');
    expect((await bao(['chat', 'demo', '--url', 'http://localhost:1'])).exitCode).toBe(2);
  });
});

describe('in a terminal', () => {
  /** `bao ARGV` as a person has it, who types when there is something to see. */
  function inTerminal(argv: string[]) {
    let screen = '';
    const waiting = new Set<() => void>();
    const child = Bun.spawn([process.execPath, MAIN, ...argv], {
      terminal: {
        cols: 200,
        rows: 40,
        data: (_, bytes) => {
          screen += Buffer.from(bytes).toString();
          for (const look of waiting) look();
        },
      },
    });
    const shown = (times: number, text: string) =>
      new Promise<void>((resolve) => {
        const look = () => {
          if (screen.split(text).length <= times) return;
          waiting.delete(look);
          resolve();
        };
        waiting.add(look);
        look();
      });
    return { child, shown, type: (keys: string) => child.terminal!.write(keys) };
  }

  test('chat has a line to edit and a history, and ends with Ctrl-D', async () => {
    const { child, shown, type } = inTerminal(['chat', '--temperature', '0']);
    await shown(1, '> ');
    type('What is the capital of Frannce?\x1b[D\x1b[D\x1b[D\x1b[D\x7f\r');
    await shown(1, 'The capital of France is Paris.');
    await shown(1, 'Paris.\r\n');
    type('\x1b[A\r');
    await shown(2, 'Paris.\r\n');
    type('\x04');
    expect(await child.exited).toBe(0);
  });

  test('Ctrl-D while an answer is written ends it behind the answer', async () => {
    const { child, shown, type } = inTerminal(['complete', '--temperature', '0', '--max-tokens', '8']);
    await shown(1, '> ');
    type('Once upon a time\r\x04');
    await shown(1, ' there was a little');
    expect(await child.exited).toBe(0);
  });

  test('Ctrl-C ends it', async () => {
    const { child, shown, type } = inTerminal(['complete', '--max-tokens', '4000']);
    await shown(1, '> ');
    type('Once\x03');
    await child.exited;
    expect(child.signalCode).toBe('SIGINT');
  });
});

describe('against a server', () => {
  let server: BaoProcess;
  beforeAll(async () => {
    server = await startBao(['demo', '--api-key', 'secret']);
  });
  afterAll(() => server.stop());

  test('chat and complete need the key, and answer as the server does', async () => {
    const url = ['--url', server.url];
    const asked = ['chat', ...url, '--temperature', '0', '-q', FRANCE];
    expect((await bao([...asked, '--api-key', 'secret'])).stdout).toContain('Paris');
    expect((await bao(asked, '', { OPENAI_API_KEY: 'secret' })).stdout).toContain('Paris');
    const refused = await bao([...asked, '--api-key', 'wrong']);
    expect(refused).toMatchObject({ stdout: '', exitCode: 1 });
    expect(refused.stderr).toStartWith('bao: ');
  });
});

test('run-batch answers every line, in order, whatever is wrong with it', async () => {
  const body = { messages: [{ role: 'user', content: FRANCE }], temperature: 0 };
  const request = (custom_id: string, url: string, fields: object) =>
    JSON.stringify({ custom_id, method: 'POST', url, body: fields });
  const lines = [
    request('good', '/v1/chat/completions', body),
    request('text', '/v1/completions', { prompt: 'x', max_tokens: 2 }),
    request('bad', '/v1/completions', { prompt: 'x', max_tokens: -2 }),
    'not JSON',
    request('stream', '/v1/completions', { prompt: 'x', stream: true }),
    request('lost', '/v1/nowhere', {}),
    ...Array.from({ length: 200 }, (_, i) =>
      request(`n${i}`, '/v1/completions', { prompt: 'x', max_tokens: 1 + (i % 9) }),
    ),
  ];
  const input = join(folder, 'in.jsonl');
  const output = join(folder, 'out.jsonl');
  await Bun.write(input, lines.join('\n'));
  const { exitCode, stderr } = await bao(['run-batch', '-i', input, '-o', output, '--model', 'demo']);
  expect(stderr).toBe(`206 requests, 4 failed: ${output}\n`);
  expect(exitCode).toBe(0);
  const answers = (await Bun.file(output).text())
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(answers.map(({ custom_id }) => custom_id)).toEqual([
    ...['good', 'text', 'bad', null, 'stream', 'lost'],
    ...Array.from({ length: 200 }, (_, i) => `n${i}`),
  ]);
  expect(answers.map(({ response }) => response.status_code).slice(0, 7)).toEqual([200, 200, 400, 400, 400, 404, 200]);
  expect(answers[0].response.body.choices[0].message.content).toContain('Paris');
  expect(answers[0].error).toBeNull();
  expect(answers[2].error.message).toContain('max_tokens');

  const same = await bao(['run-batch', '-i', input, '-o', input]);
  expect(same).toMatchObject({ exitCode: 2, stdout: '' });
});

test('collect-env tells no secret', async () => {
  const { stdout, exitCode } = await bao(['collect-env'], '', {
    BAO_API_KEY: 'hush',
    HF_TOKEN: 'hush',
    BAO_PORT: '81',
  });
  expect(exitCode).toBe(0);
  expect(stdout).toContain('Instruction set:');
  expect(stdout).toMatch(/BAO_PORT:\s+81/);
  expect(stdout).toMatch(/BAO_API_KEY:\s+\(set\)/);
  expect(stdout).not.toContain('hush');
});
