/**
 * `scripts/gpu-verify [STAGE…] [--device cuda|cuda-emulation] [--out DIR] [--time-limit SECONDS]`: builds, tests and measures on a GPU, stage by stage. A stage
 * that fails or takes too long is reported and the next one goes on. DIR (bench/results/DATE-gpu) gets results.json, summary.md and log.txt;
 * stages that are run later are added to what is there. Ends with 1 where a stage failed.
 */
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { describeMachine } from '../../bench/machine.ts';
import { runStage, type StageResult } from './run-stage.ts';
import { STAGES, type Stage, type VerifyContext } from './stages.ts';
import { summaryOf, type VerifyResults } from './summary.ts';

const ROOT = resolve(import.meta.dir, '../..');

function usage(): string {
  const lines = STAGES.map(({ name, limitS, doc }) => `  ${name.padEnd(18)}${doc} (at most ${limitS} s)\n`);
  return `Usage: scripts/gpu-verify [STAGE…] [--device cuda|cuda-emulation] [--out DIR] [--time-limit SECONDS]\n\nStages, all of them by default\n${lines.join('')}`;
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
      'time-limit': { type: 'string', default: '3600' },
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
  const limitS = Number(values['time-limit']);
  if (!(limitS > 0)) throw new Error(`--time-limit takes seconds, not ${values['time-limit']}`);
  const stages = chosenStages(positionals);
  const out = resolve(values.out ?? join(ROOT, 'bench/results', `${new Date().toISOString().slice(0, 10)}-gpu`));
  mkdirSync(out, { recursive: true });
  const path = join(out, 'results.json');
  const results: VerifyResults = existsSync(path)
    ? JSON.parse(readFileSync(path, 'utf8'))
    : { date: new Date().toISOString(), device, machine: describeMachine(), stages: {} };
  const log = (text: string) => {
    process.stdout.write(text);
    appendFileSync(join(out, 'log.txt'), text);
  };
  const scratch = mkdtempSync(join(tmpdir(), 'bao-verify-'));
  const end = performance.now() + limitS * 1000;
  let failed = false;
  try {
    for (const stage of stages) {
      log(`\n=== ${stage.name}: ${stage.doc}\n`);
      const context: VerifyContext = {
        device,
        bun: process.execPath,
        json: (name: string) => join(scratch, `${stage.name}-${name}.json`),
      };
      const limitMs = Math.min(stage.limitS * 1000, end - performance.now());
      const result: StageResult = await runStage(stage, context, limitMs, log);
      failed ||= result.outcome === 'failed';
      log(`=== ${stage.name}: ${result.outcome} after ${result.seconds.toFixed(1)} s\n`);
      results.stages[stage.name] = result;
      // After each stage: whoever stops the run keeps what is done.
      writeFileSync(path, `${JSON.stringify(results, null, 2)}\n`);
      writeFileSync(join(out, 'summary.md'), summaryOf(results));
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  process.stdout.write(`\n${summaryOf(results)}\n${out}\n`);
  return failed ? 1 : 0;
}

process.chdir(ROOT);
try {
  process.exit(await main());
} catch (error) {
  console.error(`gpu-verify: ${error instanceof Error ? error.message : error}`);
  process.exit(2);
}
