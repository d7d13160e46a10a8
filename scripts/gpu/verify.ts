/**
 * `scripts/gpu-verify [STAGE…] [--device cuda|cuda-emulation] [--out DIR] [--budget-s SECONDS]`: builds, tests and measures on a GPU, stage by stage. A stage
 * that fails or takes too long is reported and the next one goes on. DIR (bench/results/DATE-gpu) gets results.json and summary.md, anew after each
 * command, and log.txt; stages that are run later are added to what is there. It prints little but how each stage went, and at its end the summary.
 * Ends with 1 where a stage failed.
 */
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { describeMachine } from '../../bench/machine.ts';
import { type CommandResult, runStage, type StageResult } from './run-stage.ts';
import { STAGES, type Stage } from './stages.ts';
import { summaryOf, type VerifyResults } from './summary.ts';

const ROOT = resolve(import.meta.dir, '../..');
/** Of a command that failed, on the terminal; the log has all of it. */
const TOLD_LINES = 8;

function usage(): string {
  const lines = STAGES.map(({ name, limitS, doc }) => `  ${name.padEnd(18)}${doc} (at most ${limitS} s)\n`);
  return `Usage: scripts/gpu-verify [STAGE…] [--device cuda|cuda-emulation] [--out DIR] [--budget-s SECONDS]\n\nStages, all of them by default\n${lines.join('')}`;
}

function chosenStages(names: readonly string[]): readonly Stage[] {
  const unknown = names.find((name) => STAGES.every((stage) => stage.name !== name));
  if (unknown !== undefined) throw new Error(`there is no stage "${unknown}".\n${usage()}`);
  return names.length === 0 ? STAGES : STAGES.filter(({ name }) => names.includes(name));
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      device: { type: 'string', default: 'cuda' },
      out: { type: 'string' },
      'budget-s': { type: 'string', default: '3600' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(usage());
    return 0;
  }
  const { device } = values;
  if (device !== 'cuda' && device !== 'cuda-emulation')
    throw new Error(`--device is cuda or cuda-emulation, not ${device}`);
  const budgetS = Number(values['budget-s']);
  if (!(budgetS > 0)) throw new Error(`--budget-s takes seconds, not ${values['budget-s']}`);
  const stages = chosenStages(positionals);
  const out = resolve(values.out ?? join(ROOT, 'bench/results', `${new Date().toISOString().slice(0, 10)}-gpu`));
  mkdirSync(out, { recursive: true });
  const path = join(out, 'results.json');
  const results: VerifyResults = existsSync(path)
    ? JSON.parse(readFileSync(path, 'utf8'))
    : { date: new Date().toISOString(), device, machine: describeMachine(), stages: {} };
  const log = (text: string) => appendFileSync(join(out, 'log.txt'), text);
  const tell = (line: string) => {
    process.stdout.write(`${line}\n`);
    log(`${line}\n`);
  };
  // Whoever stops the run keeps what is done.
  const write = (name: string, stage: StageResult) => {
    results.stages[name] = stage;
    writeFileSync(path, `${JSON.stringify(results, null, 2)}\n`);
    writeFileSync(join(out, 'summary.md'), summaryOf(results));
  };
  const scratch = mkdtempSync(join(tmpdir(), 'bao-verify-'));
  const end = performance.now() + budgetS * 1000;
  let failed = false;
  let built = true;
  try {
    for (const stage of stages) {
      const { name, doc, limitS, needsBuild = false } = stage;
      tell(`=== ${name}: ${doc}`);
      if (needsBuild && !built) {
        write(name, leftOut('the kernels could not be built'));
        tell('    left out: the kernels could not be built');
        continue;
      }
      const limitMs = Math.min(limitS * 1000, end - performance.now());
      if (limitMs <= 0) {
        write(name, leftOut('no time was left'));
        tell('    left out: no time was left');
        continue;
      }
      const json = (figures: string) => join(scratch, `${name}-${figures}.json`);
      const result = await runStage(stage, { device, bun: process.execPath, json }, limitMs, log, (soFar) =>
        write(name, soFar),
      );
      write(name, result);
      failed ||= result.outcome === 'failed';
      // The first of its commands builds the device's kernels.
      if (name === 'build') built = result.commands[0]?.outcome === 'ok';
      for (const line of whatWentWrong(result)) tell(`    ${line}`);
      tell(`    ${result.outcome} after ${result.seconds.toFixed(1)} s`);
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  process.stdout.write(`\n${summaryOf(results)}\n${out}\n`);
  return failed ? 1 : 0;
}

/** The last lines of each command that did not end well. */
function whatWentWrong({ commands }: StageResult): string[] {
  return commands
    .filter(({ outcome }) => outcome === 'failed' || outcome === 'timed out')
    .flatMap(({ command, outcome, tail }) => [
      `${outcome}: ${command.slice(0, 160)}`,
      ...tail
        .trim()
        .split('\n')
        .slice(-TOLD_LINES)
        .map((line) => `  ${line.slice(0, 200)}`),
    ]);
}

function leftOut(reason: string): StageResult {
  const command: CommandResult = { command: '', seconds: 0, exit_code: null, outcome: 'left out', tail: reason };
  return { outcome: 'left out', seconds: 0, commands: [command], figures: {} };
}

process.chdir(ROOT);
try {
  process.exit(await main());
} catch (error) {
  console.error(`gpu-verify: ${error instanceof Error ? error.message : error}`);
  process.exit(2);
}
