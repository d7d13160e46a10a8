import { afterAll, beforeEach, describe, expect, test } from 'bun:test';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

/** The scripts as they run in a small checkout of their own. */
const SCRIPTS = resolve(import.meta.dir, '../../scripts');
const parent = mkdtempSync(join(tmpdir(), 'bao-checkout-'));
afterAll(() => rmSync(parent, { recursive: true }));

let checkout = '';
beforeEach(() => {
  checkout = mkdtempSync(join(parent, 'c-'));
});

function write(path: string, text: string): void {
  mkdirSync(dirname(join(checkout, path)), { recursive: true });
  writeFileSync(join(checkout, path), text);
}

function copyScript(name: string): void {
  cpSync(join(SCRIPTS, name), join(checkout, 'scripts', name));
}

async function run(script: string, ...argv: string[]) {
  const child = Bun.spawn([process.execPath, join(checkout, 'scripts', script), ...argv], {
    cwd: checkout,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { stdout, stderr, exitCode, lastLine: stdout.trimEnd().split('\n').at(-1) };
}

describe('scripts/setup.ts', () => {
  beforeEach(() => {
    copyScript('setup.ts');
    write('package.json', '{"name":"small","dependencies":{"dep":"file:./dep"}}');
    write('dep/package.json', '{"name":"dep","version":"1.0.0"}');
    write('scripts/build-cpu.ts', 'export const ensureCpuLibrary = async () => "library";');
    write('scripts/build-llguidance.ts', 'export const ensureGuidanceLibrary = () => {};');
    const { exitCode } = Bun.spawnSync([process.execPath, 'install', '--lockfile-only'], { cwd: checkout });
    expect(exitCode).toBe(0);
  });

  test('installs dependencies once for each bun.lock', async () => {
    const first = await run('setup.ts');
    expect(first.stderr).toContain('Installing dependencies');
    expect(first.exitCode).toBe(0);
    expect(await Bun.file(join(checkout, 'node_modules/dep/package.json')).exists()).toBe(true);

    expect(await run('setup.ts')).toMatchObject({ stdout: '', stderr: '', exitCode: 0 });

    write('bun.lock', `${await Bun.file(join(checkout, 'bun.lock')).text()}\n`);
    expect((await run('setup.ts')).stderr).toContain('Installing dependencies');
  });

  test('ends with one sentence when the library can’t be built', async () => {
    write('scripts/build-cpu.ts', 'export async function ensureCpuLibrary() { throw new Error("no compiler here"); }');
    const { stderr, exitCode } = await run('setup.ts');
    expect(stderr).toEndWith('setup: no compiler here\n');
    expect(exitCode).toBe(1);
  });
});

describe('scripts/test.ts', () => {
  const passing = "import { test } from 'bun:test';\ntest('passes', () => {});\n";
  beforeEach(() => {
    copyScript('test.ts');
    copyScript('test-groups.ts');
    write('test/unit/a.test.ts', passing);
    write('test/e2e/b.test.ts', passing);
    write('test/e2e/c.test.ts', passing);
  });

  test('sums over its groups in the last line', async () => {
    expect(await run('test.ts')).toMatchObject({ lastLine: '3 passed, 0 failed', exitCode: 0 });
  });

  test('takes path filters, behind -- too, and options of bun test', async () => {
    expect((await run('test.ts', '--', 'e2e')).lastLine).toBe('2 passed, 0 failed');
    expect((await run('test.ts', 'unit', '-t', 'passes')).lastLine).toBe('1 passed, 0 failed');
    expect(await run('test.ts', 'nothing')).toMatchObject({ exitCode: 1, stderr: 'No test file matches nothing.\n' });
  });

  test('counts failed tests, files that can’t be loaded and processes that die', async () => {
    write(
      'test/unit/bad.test.ts',
      "import { test } from 'bun:test';\ntest('fails', () => { throw new Error('x'); });\n",
    );
    write('test/unit/unloadable.test.ts', "import './absent.ts';\n");
    write(
      'test/e2e/b.test.ts',
      "import { test } from 'bun:test';\ntest('dies', () => { process.kill(process.pid, 'SIGKILL'); });\n",
    );
    expect(await run('test.ts')).toMatchObject({ lastLine: '2 passed, 3 failed', exitCode: 1 });
  });
});
