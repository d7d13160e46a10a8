import { afterAll, beforeAll, expect, test } from 'bun:test';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { post } from './bao-process.ts';
import { waitForServer } from './installed-bao.ts';

const ROOT = resolve(import.meta.dir, '../..');
const folder = mkdtempSync(join(tmpdir(), 'bao-executable-'));
const executable = join(folder, 'bao');
const empty = join(folder, 'empty');
const cache = join(folder, 'cache');
/** Neither Bun nor a compiler is in the PATH. */
const options = { cwd: empty, env: { PATH: '/nowhere', HOME: folder, XDG_CACHE_HOME: cache } };

beforeAll(async () => {
  mkdirSync(empty);
  const build = join(ROOT, 'scripts/build-executable.ts');
  const child = Bun.spawn([process.execPath, build, executable, '--this-machine'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const stderr = await new Response(child.stderr).text();
  expect(await child.exited, stderr).toBe(0);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('it completes and chats by itself, in an empty folder', async () => {
  const child = Bun.spawn([executable, 'chat', '--temperature', '0'], {
    ...options,
    stdin: new Blob(['What is the capital of France?\n']),
    stdout: 'pipe',
    stderr: 'pipe',
  });
  expect(await new Response(child.stdout).text()).toContain('Paris');
  expect(await child.exited).toBe(0);
  expect(readdirSync(empty)).toEqual([]);
  expect(readdirSync(join(cache, 'bao'))).toHaveLength(1);
});

test('it serves, with several threads for HTTP, long prompts and grammars', async () => {
  const flags = ['--host', '127.0.0.1', '--port', '0', '--api-server-count', '2'];
  const child = Bun.spawn([executable, 'serve', ...flags], { ...options, stdio: ['ignore', 'ignore', 'pipe'] });
  try {
    const url = await waitForServer(child);
    const completions = `${url}/v1/completions`;
    const choice = { structured_outputs: { choice: ['yes', 'no'] } };
    const { status, body } = await post(completions, { prompt: 'x', max_tokens: 5, ...choice });
    expect(status).toBe(200);
    expect(['yes', 'no']).toContain((body as { choices: { text: string }[] }).choices[0]!.text);
    // Longer than what is tokenized at once: a Worker does it.
    const long = await post(completions, { prompt: 'word '.repeat(1800), max_tokens: 1 });
    expect(long.status).toBe(200);
  } finally {
    child.kill();
    await child.exited;
  }
});
