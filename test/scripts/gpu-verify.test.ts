import { describe, expect, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { packagesNeeded } from '../../scripts/gpu/pack.ts';
import { runStage } from '../../scripts/gpu/run-stage.ts';
import { STAGES, type Stage, type StageCommand, type VerifyContext } from '../../scripts/gpu/stages.ts';
import { summaryOf } from '../../scripts/gpu/summary.ts';

const ROOT = resolve(import.meta.dir, '../..');

function stageOf(...commands: StageCommand[]): Stage {
  return { name: 'test', doc: 'a test', limitS: 10, commands: () => commands };
}

async function run(stage: Stage, limitMs = 10_000) {
  const folder = mkdtempSync(join(tmpdir(), 'bao-gpu-verify-'));
  let log = '';
  try {
    const context: VerifyContext = {
      device: 'cuda-emulation',
      bun: process.execPath,
      json: (name) => join(folder, name),
    };
    writeFileSync(join(folder, 'written'), '{"read_gbps": 7}');
    const result = await runStage(stage, context, limitMs, (text) => {
      log += text;
    });
    return { ...result, log };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    // One that has ended and that nobody has waited for yet counts as gone.
    return !/^\d+ \(.*\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

describe('a stage of gpu-verify', () => {
  test('goes on after a command that fails, and keeps the figures of those that do not', async () => {
    const result = await run(
      stageOf(
        { argv: ['sh', '-c', 'echo broken; exit 3'], figures: 'missing' },
        { argv: ['sh', '-c', 'echo fine >&2'], figures: 'written' },
      ),
    );
    expect(result.outcome).toBe('failed');
    expect(result.commands.map(({ outcome, exit_code }) => [outcome, exit_code])).toEqual([
      ['failed', 3],
      ['ok', 0],
    ]);
    expect(result.commands[0]!.tail).toBe('broken\n');
    expect(result.figures).toEqual({ written: { read_gbps: 7 } });
    expect(result.log).toContain('fine');
  });

  test('stops what outlasts the limit, and what would come after it', async () => {
    const { outcome, commands } = await run(stageOf({ argv: ['sleep', '60'] }, { argv: ['true'] }), 50);
    expect(outcome).toBe('failed');
    expect(commands.map((each) => each.outcome)).toEqual(['timed out', 'timed out']);
  });

  test('leaves out a program that is not there', async () => {
    const { outcome, commands } = await run(stageOf({ argv: ['no-such-program'], needs: 'no-such-program' }));
    expect(outcome).toBe('left out');
    expect(commands[0]!.tail).toBe('no-such-program is not here');
  });

  test.skipIf(Bun.which('python3') === null)("leaves out what needs packages that Python hasn't", async () => {
    const needs = (...needsPackages: string[]) => stageOf({ argv: ['true'], needs: 'python3', needsPackages });
    const { commands } = await run(needs('json', 'no_such_package', 'no_other'));
    expect(commands[0]).toMatchObject({ outcome: 'left out', tail: 'Python has no no_such_package, no no_other' });
    expect((await run(needs('json', 'os'))).outcome).toBe('ok');
  });

  test('is in the summary, with what went wrong and figures beside their limits', () => {
    const command = {
      command: 'x -c\ny',
      seconds: 1,
      exit_code: 1,
      outcome: 'failed' as const,
      tail: 'first\nthe | reason\n',
    };
    const figures = {
      b1: {
        decode_tokens_per_s: 100,
        decode_read_gbps: 50,
        limit_read_gbps: 100,
        prefill_tokens_per_s: 1,
        prefill_gflops: 1,
        limit_gflops: 4,
      },
    };
    const summary = summaryOf({
      date: '2026-01-01',
      device: 'cuda',
      machine: { cpu: 'a cpu', threads: 1, memory_gib: 1, os: 'os', bun: '1', load_average: 0 },
      stages: { 'latency-8b': { outcome: 'failed', seconds: 2, commands: [command], figures } },
    });
    expect(summary).toContain('| latency-8b | failed | 2.0 s | failed: x -c y: the / reason |');
    expect(summary).toContain('50 of 100 GB/s (0.50)');
  });
});

test('a stage is reported after each of its commands, with the figures of one that failed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-gpu-verify-'));
  const json = (name: string) => join(folder, name);
  const reports: [number, string][] = [];
  const stage = stageOf(
    { argv: ['sh', '-c', `echo '{"ops": 3}' > ${json('partly')}; exit 1`], figures: 'partly' },
    { argv: ['sh', '-c', `echo broken > ${json('garbled')}`], figures: 'garbled' },
  );
  const context: VerifyContext = { device: 'cuda', bun: process.execPath, json };
  const { figures } = await runStage(
    stage,
    context,
    10_000,
    () => {},
    (soFar) => reports.push([soFar.commands.length, soFar.outcome]),
  );
  rmSync(folder, { recursive: true });
  expect(figures).toEqual({ partly: { ops: 3 } });
  expect(reports).toEqual([
    [1, 'failed'],
    [2, 'failed'],
  ]);
});

test('a run that is stopped leaves nothing behind', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-gpu-verify-'));
  const script = join(folder, 'run.ts');
  writeFileSync(
    script,
    `import { runStage } from ${JSON.stringify(join(ROOT, 'scripts/gpu/run-stage.ts'))};
    const stage = { name: 'test', doc: '', limitS: 60, commands: () => [{ argv: ['sh', '-c', 'echo $$; exec sleep 60'] }] };
    await runStage(stage, { device: 'cuda', bun: 'bun', json: (name) => name }, 60_000, (text) => process.stdout.write(text));`,
  );
  const child = Bun.spawn([process.execPath, script], { stdout: 'pipe' });
  let printed = '';
  for await (const bytes of child.stdout) {
    printed += new TextDecoder().decode(bytes);
    if (/^\d+$/m.test(printed)) child.kill('SIGTERM');
  }
  const pid = Number(/^\d+$/m.exec(printed)![0]);
  expect(await child.exited).toBe(143);
  // The kernel takes a moment to end it; the test's deadline tells of one that stays.
  while (isAlive(pid)) await Bun.sleep(5);
  rmSync(folder, { recursive: true });
});

test('the summary fits into what a terminal keeps, whatever went wrong', () => {
  const command = {
    command: 'c'.repeat(500),
    seconds: 1,
    exit_code: 1,
    outcome: 'failed' as const,
    tail: 't'.repeat(999),
  };
  const stage = { outcome: 'failed' as const, seconds: 2, commands: new Array(9).fill(command), figures: {} };
  const summary = summaryOf({
    date: '2026-01-01',
    device: 'cuda',
    machine: { cpu: 'a cpu', threads: 1, memory_gib: 1, os: 'os', bun: '1', load_average: 0 },
    stages: Object.fromEntries(STAGES.map(({ name }) => [name, stage])),
  });
  expect(summary.length).toBeLessThan(12_000);
  for (const { name } of STAGES) expect(summary).toContain(`| ${name} | failed |`);
});

test('what shows whether results are right comes before what is measured', () => {
  const at = (name: string) => STAGES.findIndex((stage) => stage.name === name);
  expect(at('build')).toBeLessThan(at('demo'));
  expect(at('kernels')).toBeLessThan(at('latency-8b'));
});

test('the pack has what server and tests import, and no native tokenizers', () => {
  const packages = packagesNeeded(ROOT);
  for (const name of ['hono', 'valibot', 'prom-client', 'fast-check', 'pure-rand']) {
    expect(packages).toContain(`node_modules/${name}`);
  }
  expect(packages.filter((name) => name.includes('tokenizers'))).toEqual(['node_modules/@huggingface/tokenizers']);
});

test('every stage has its own name and is short enough for a command of ten minutes', () => {
  expect(new Set(STAGES.map(({ name }) => name)).size).toBe(STAGES.length);
  for (const { limitS } of STAGES) expect(limitS).toBeLessThan(600);
});
