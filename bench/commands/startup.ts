import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { FLAGS, type FlagValues } from '../../src/config/flags/index.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { writeResult } from '../results.ts';
import { baoUrl, type LoggedLine, ServerProcess } from '../server-process.ts';
import { median } from '../statistics.ts';
import { formatPairs } from '../table.ts';

/** A prompt that every model takes. */
const PROMPT_IDS = [1, 2, 3, 4];

/** The JSON of `bun bench startup`. Milliseconds since the process was started; medians of the runs. */
export interface StartupFigures {
  model: string;
  num_runs: number;
  ready_ms: number;
  first_token_ms: number;
  ready_ms_runs: number[];
  first_token_ms_runs: number[];
  /** The log of the run with the median time to ready: where the time goes. */
  milestones: LoggedLine[];
}

interface StartupRun {
  readyMs: number;
  firstTokenMs: number;
  milestones: LoggedLine[];
}

export async function measureStartup(args: readonly string[], model: string, runs: number): Promise<StartupFigures> {
  const measured: StartupRun[] = [];
  for (let run = 0; run < runs; run++) measured.push(await startOnce(args));
  const byReady = [...measured].sort((a, b) => a.readyMs - b.readyMs);
  return {
    model,
    num_runs: runs,
    ready_ms: median(measured.map((run) => run.readyMs)),
    first_token_ms: median(measured.map((run) => run.firstTokenMs)),
    ready_ms_runs: measured.map((run) => run.readyMs),
    first_token_ms_runs: measured.map((run) => run.firstTokenMs),
    milestones: byReady[Math.floor((runs - 1) / 2)]!.milestones,
  };
}

async function startOnce(args: readonly string[]): Promise<StartupRun> {
  const server = ServerProcess.bao([...args, '--log-level', 'debug']);
  try {
    const url = await baoUrl(server);
    const readyMs = performance.now() - server.started;
    const milestones = server.lines.filter(({ text }) => /^(\(.*\) )?(DEBUG|INFO|WARNING) /.test(text));
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ prompt: PROMPT_IDS, max_tokens: 1, temperature: 0 }),
    });
    if (!response.ok) throw new Error(`The first request was answered ${response.status}: ${await response.text()}`);
    await response.arrayBuffer();
    return { readyMs, firstTokenMs: performance.now() - server.started, milestones };
  } finally {
    await server.stop();
  }
}

/** The command line that gives these flags. */
export function serveArguments(given: Partial<FlagValues>): string[] {
  return FLAGS.flatMap(({ name, field, spec }) => {
    const value = given[field];
    if (value === undefined || value === null || name === 'log-level') return [];
    if (spec.type === 'boolean') return [value ? `--${name}` : `--no-${name}`];
    if (Array.isArray(value)) return [`--${name}`, JSON.stringify(value)];
    return [`--${name}=${typeof value === 'object' ? JSON.stringify(value) : value}`];
  });
}

/** Bench shapes have no tokenizer; the server wants to be told. */
export function skipMissingTokenizer(given: Partial<FlagValues>): Partial<FlagValues> {
  const model = given.model ?? '';
  const isShape = existsSync(join(model, 'config.json')) && !existsSync(join(model, 'tokenizer.json'));
  return isShape && given.tokenizer === undefined ? { skipTokenizerInit: true, ...given } : given;
}

export function startupTable(figures: StartupFigures): string {
  const totals = formatPairs([
    ['Model', figures.model],
    ['Ready', `${Math.round(figures.ready_ms)} ms after the process was started (median of ${figures.num_runs})`],
    ['First token', `${Math.round(figures.first_token_ms)} ms`],
  ]);
  const log = figures.milestones.map(({ ms, text }) => [`${Math.round(ms)} ms`.padStart(8), text] as const);
  return `${totals}\n${formatPairs(log)}`;
}

export const startup = defineCommand({
  name: 'startup',
  doc: 'From the start of the server process to ready and to the first token.',
  flags: {
    'num-runs': { type: 'int', default: 5, min: 1, help: 'Starts; the first one may warm the page cache.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: true,
  async run(values, engine) {
    const args = serveArguments(skipMissingTokenizer(engine));
    const figures = await measureStartup(args, engine.model ?? 'demo', values.numRuns);
    process.stdout.write(startupTable(figures));
    await writeResult(values.outputJson, 'startup', figures);
  },
});
