import { afterAll, beforeAll, expect, test } from 'bun:test';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import packageJson from '../../package.json' with { type: 'json' };
import { post } from './bao-process.ts';
import { waitForServer } from './installed-bao.ts';

const ROOT = resolve(import.meta.dir, '../..');
const folder = mkdtempSync(join(tmpdir(), 'bao-package-'));
const app = join(folder, 'app');
const installed = join(app, 'node_modules/bao');
/** The checkout's kernels, so that they are not built once more. */
const environment = { ...process.env, BAO_CACHE_DIR: join(ROOT, '.cache') };

async function run(command: string[], options: { cwd?: string; env?: Record<string, string | undefined> } = {}) {
  const child = Bun.spawn(command, { cwd: app, env: environment, stdio: ['ignore', 'pipe', 'pipe'], ...options });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (exitCode !== 0) throw new Error(`${command.join(' ')} ended with ${exitCode}:\n${stdout}${stderr}`);
  return stdout;
}

/** What the tarball holds, installed in an empty folder. */
beforeAll(async () => {
  mkdirSync(app);
  writeFileSync(join(app, 'package.json'), '{"name":"app","type":"module","private":true}');
  await run([process.execPath, 'pm', 'pack', '--destination', folder], { cwd: ROOT });
  const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz'))!;
  await run([process.execPath, 'add', join(folder, tarball)]);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const bao = (...argv: string[]) => [process.execPath, join(app, 'node_modules/.bin/bao'), ...argv];

test('bao --version and bao bench --help', async () => {
  expect(await run(bao('--version'))).toBe(`${packageJson.version}\n`);
  expect(await run(bao('bench', '--help'))).toContain('throughput');
});

test('nothing is written into the package: its cache is the user’s', async () => {
  const home = join(folder, 'home');
  const found = await run(bao('collect-env'), { env: { ...process.env, BAO_CACHE_DIR: '', XDG_CACHE_HOME: home } });
  expect(found).toContain(`${join(home, 'bao')} (not there yet)`);
  expect(found).toContain(installed);
  expect(found).toContain('not built yet');
});

test('a program generates with it, and its types hold', async () => {
  const program = join(app, 'program.ts');
  writeFileSync(
    program,
    `import { LLM, SamplingParams } from 'bao';
await using llm = await LLM.create({ model: 'demo', logLevel: 'error' });
const outputs = await llm.chat(
  [{ role: 'user', content: 'What is the capital of France?' }],
  new SamplingParams({ temperature: 0, maxTokens: 16 }),
);
const text: string | undefined = outputs[0]?.outputs[0]?.text;
console.log(text);
`,
  );
  chmodSync(installed, 0o555);
  expect(await run([process.execPath, program])).toContain('Paris');

  const settings = ['--noEmit', '--strict', '--skipLibCheck', '--noUncheckedIndexedAccess', '--target', 'esnext'];
  const modules = ['--module', 'esnext', '--moduleResolution', 'bundler', '--lib', 'esnext,dom', '--types', 'bun'];
  const types = ['--typeRoots', join(ROOT, 'node_modules/@types')];
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  expect(await run([process.execPath, tsc, ...settings, ...modules, ...types, program])).toBe('');
});

test('bao serve answers', async () => {
  const child = Bun.spawn(bao('serve', '--host', '127.0.0.1', '--port', '0'), {
    cwd: app,
    env: environment,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  try {
    const url = await waitForServer(child);
    const { status, body } = await post(`${url}/v1/completions`, { prompt: 'one', max_tokens: 2 });
    expect(status).toBe(200);
    expect(body).toMatchObject({ model: 'demo', usage: { completion_tokens: 2 } });
  } finally {
    child.kill();
    await child.exited;
  }
});
