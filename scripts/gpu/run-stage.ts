import { existsSync, readFileSync } from 'node:fs';
import type { Stage, StageCommand, VerifyContext } from './stages.ts';

/** Of a command's output in the results; the log has all of it. */
const TAIL_CHARACTERS = 4000;
/** Exit code of a run that a signal ended. */
const SIGNALLED = 143;

export interface CommandResult {
  command: string;
  seconds: number;
  /** null: it was stopped at the stage's limit, or its program is not there. */
  exit_code: number | null;
  outcome: 'ok' | 'failed' | 'timed out' | 'left out';
  tail: string;
}

export interface StageResult {
  /** `left out`: no time was left for it, or nothing of it can run here. */
  outcome: 'ok' | 'failed' | 'left out';
  seconds: number;
  commands: CommandResult[];
  figures: Record<string, unknown>;
}

/** Prints which of the packages that it is given are not there. */
const MISSING_PACKAGES =
  'import importlib.util as u, sys; print(*(name for name in sys.argv[1:] if u.find_spec(name) is None))';

/** What is not here of what the command needs; null where nothing is missing. */
function missingNeed({ needs, needsPackages = [] }: StageCommand): string | null {
  if (needs !== undefined && Bun.which(needs) === null) return `${needs} is not here`;
  if (needsPackages.length === 0) return null;
  const { stdout } = Bun.spawnSync(['python3', '-c', MISSING_PACKAGES, ...needsPackages]);
  const missing = stdout.toString().trim();
  return missing === '' ? null : `Python has no ${missing.replaceAll(' ', ', no ')}`;
}

/** Runs a program to its end or to the limit; what it prints goes to `log` as it comes. */
async function runCommand(
  stageCommand: StageCommand,
  limitMs: number,
  log: (text: string) => void,
): Promise<CommandResult> {
  const { argv, env } = stageCommand;
  const command = argv.join(' ');
  const missing = missingNeed(stageCommand);
  if (missing !== null) return { command, seconds: 0, exit_code: null, outcome: 'left out', tail: missing };
  if (limitMs <= 0) return { command, seconds: 0, exit_code: null, outcome: 'timed out', tail: 'no time was left' };
  log(`$ ${command}\n`);
  const started = performance.now();
  const child = Bun.spawn(['sh', '-c', 'exec "$@" 2>&1', 'sh', ...argv], {
    env: { ...process.env, ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'ignore',
    // A process group of its own, so that servers which it started end with it.
    detached: true,
  });
  const kill = () => process.kill(-child.pid, 'SIGKILL');
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    kill();
  }, limitMs);
  // Whoever stops the run stops what it runs.
  const stop = () => {
    kill();
    process.exit(SIGNALLED);
  };
  process.once('SIGTERM', stop).once('SIGINT', stop);
  let tail = '';
  const reading = (async () => {
    const decoder = new TextDecoder();
    for await (const bytes of child.stdout) {
      const text = decoder.decode(bytes, { stream: true });
      log(text);
      tail = (tail + text).slice(-TAIL_CHARACTERS);
    }
  })();
  const code = await child.exited;
  clearTimeout(timer);
  process.off('SIGTERM', stop).off('SIGINT', stop);
  // What it started may still hold the pipe.
  await Promise.race([reading, Bun.sleep(1000)]);
  const outcome = timedOut ? 'timed out' : code === 0 ? 'ok' : 'failed';
  return {
    command,
    seconds: (performance.now() - started) / 1000,
    exit_code: timedOut ? null : code,
    outcome,
    tail,
  };
}

/** The figures that a command wrote; null where it wrote none that can be read. */
function figuresOf(path: string): unknown {
  try {
    return existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : null;
  } catch {
    return null;
  }
}

/**
 * Runs a stage's commands one after another; one that fails does not keep the others from running. Never throws for what a command does.
 *
 * @param report hears of the stage as it is after each command
 */
export async function runStage(
  stage: Stage,
  context: VerifyContext,
  limitMs: number,
  log: (text: string) => void,
  report: (soFar: StageResult) => void = () => {},
): Promise<StageResult> {
  const started = performance.now();
  const commands: CommandResult[] = [];
  const figures: Record<string, unknown> = {};
  for (const command of stage.commands(context)) {
    // A timer may end a command just before the limit; nothing runs in what that leaves.
    const leftMs = commands.at(-1)?.outcome === 'timed out' ? 0 : limitMs - (performance.now() - started);
    commands.push(await runCommand(command, leftMs, log));
    // One that failed may have got so far.
    const found = command.figures === undefined ? null : figuresOf(context.json(command.figures));
    if (found !== null) figures[command.figures!] = found;
    report(resultOf(started, commands, figures));
  }
  return resultOf(started, commands, figures);
}

function resultOf(started: number, commands: CommandResult[], figures: Record<string, unknown>): StageResult {
  const ran = commands.filter(({ outcome }) => outcome !== 'left out');
  const allOk = ran.every(({ outcome }) => outcome === 'ok');
  return {
    outcome: ran.length === 0 ? 'left out' : allOk ? 'ok' : 'failed',
    seconds: (performance.now() - started) / 1000,
    commands,
    figures,
  };
}
