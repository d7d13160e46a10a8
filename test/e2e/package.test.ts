import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import packageJson from '../../package.json' with { type: 'json' };
import { parseServeArgs } from '../../src/cli/parse-args.ts';
import { post, startBao } from './bao-process.ts';
import { docExamples, shellCommands } from './doc-examples.ts';
import { waitForServer } from './installed-bao.ts';

const ROOT = resolve(import.meta.dir, '../..');
const folder = mkdtempSync(join(tmpdir(), 'bao-package-'));
const app = join(folder, 'app');
const installed = join(app, 'node_modules/bao');
/** The checkout's kernels, so that they are not built once more. */
const environment = { ...process.env, BAO_CACHE_DIR: process.env.BAO_CACHE_DIR || join(ROOT, '.cache') };

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

  await checkTypes('--noUncheckedIndexedAccess', program);
});

/** Throws what tsc has to say. */
async function checkTypes(...more: string[]): Promise<void> {
  const settings = ['--noEmit', '--strict', '--skipLibCheck', '--target', 'esnext'];
  const modules = ['--module', 'esnext', '--moduleResolution', 'bundler', '--lib', 'esnext,dom', '--types', 'bun'];
  const types = ['--typeRoots', join(ROOT, 'node_modules/@types')];
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  expect(await run([process.execPath, tsc, ...settings, ...modules, ...types, ...more])).toBe('');
}

describe('the examples of the documentation, as a reader would copy them', () => {
  const programs = docExamples('ts').map(({ place, code }, i) => ({ place, file: join(app, `example${i}.ts`), code }));

  test('have types that hold', async () => {
    symlinkSync(join(ROOT, 'node_modules/openai'), join(app, 'node_modules/openai'));
    for (const { file, code } of programs) writeFileSync(file, `${code}export {};\n`);
    await checkTypes(...programs.map(({ file }) => file));
  });

  test('programs run, against a server where they name one', async () => {
    const server = await startBao(['demo']);
    try {
      for (const { place, file, code } of programs) {
        // The embedded model in place of one that would have to be downloaded.
        const runnable = code
          .replaceAll('http://localhost:8000', server.url)
          .replace("model: 'BAAI/bge-small-en-v1.5'", "model: 'demo', runner: 'pooling'");
        writeFileSync(file, runnable);
        const output = await run([process.execPath, file]);
        if (/console\.log|stdout\.write/.test(code)) expect(output, place).not.toBe('');
      }
    } finally {
      await server.stop();
    }
  });

  test.if(Bun.which('curl') !== null)('requests are answered by the servers beside them', async () => {
    const adapters = ['--enable-lora', '--lora-modules', 'pirate=demo-pirate', '--allow-runtime-lora-updating'];
    const servers = await Promise.all([startBao(['demo', ...adapters]), startBao(['demo', '--runner', 'pooling'])]);
    try {
      const requests = docExamples('sh').flatMap(({ place, code }) =>
        shellCommands(code)
          .filter((command) => command.startsWith('curl '))
          .map((command) => ({ place, command })),
      );
      expect(requests.length).toBeGreaterThan(3);
      for (const { place, command } of requests) {
        const { url } = servers[place.startsWith('docs/pooling.md') ? 1 : 0]!;
        const here = command
          .replace('http://localhost:8000', url)
          .replace('/adapters/corsair', join(ROOT, 'models/demo-pirate'));
        await run(['sh', '-c', here.replace('curl ', 'curl -sS --fail-with-body ')]);
      }
    } finally {
      await Promise.all(servers.map((server) => server.stop()));
    }
  });

  test('command lines of bao serve have flags that there are', async () => {
    const lines = docExamples('sh')
      .flatMap(({ code }) => shellCommands(code))
      .map((command) => /^(?:bun run|bao|\.\/bao) serve\b(.*)$/.exec(command)?.[1])
      .filter((flags) => flags !== undefined);
    expect(lines.length).toBeGreaterThan(8);
    for (const flags of lines) {
      // The shell takes the words apart, quotes and all.
      const words = JSON.parse(
        await run([
          'sh',
          '-c',
          `exec "$0" -e 'console.log(JSON.stringify(process.argv.slice(1)))' -- ${flags}`,
          process.execPath,
        ]),
      ) as string[];
      await parseServeArgs(words.filter((word) => word !== '--'));
    }
  });
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
