import { ConfigError, UsageError } from '../config/config-error.ts';
import { ValidationError } from '../errors/validation-error.ts';
import { LoadError } from '../loader/load-error.ts';

/** Loaded when asked for: `--version` needs none of a server. */
const COMMANDS: Readonly<Record<string, (argv: readonly string[]) => Promise<void>>> = {
  serve: async (argv) => (await import('./serve.ts')).serve(argv),
  chat: async (argv) => (await import('./chat.ts')).chat(argv),
  complete: async (argv) => (await import('./complete.ts')).complete(argv),
  'run-batch': async (argv) => (await import('./run-batch.ts')).runBatch(argv),
  bench: async (argv) => (await import('./bench.ts')).bench(argv),
  // Not for people: a server's own processes.
  'grammar-trials': async () => (await import('../structured-output/trial/trial-process.ts')).runGrammarTrials(),
  'collect-env': async (argv) => (await import('./collect-env.ts')).collectEnv(argv),
};

/** `bao COMMAND …`. Throws UsageError for an unknown command, and what the command throws. */
export async function runCommand(argv: readonly string[]): Promise<void> {
  const [command, ...rest] = argv;
  if (command === undefined || command === 'help' || command === '--help' || command === '-h') {
    const { MAIN_HELP } = await import('./help.ts');
    process.stdout.write(MAIN_HELP);
    return;
  }
  if (command === '--version' || command === '-v') {
    const { VERSION } = await import('../version.ts');
    process.stdout.write(`${VERSION}\n`);
    return;
  }
  if (Object.hasOwn(COMMANDS, command)) return COMMANDS[command]!(rest);

  const { closest } = await import('../config/flags/unknown-flag.ts');
  const [alike] = await closest(command, Object.keys(COMMANDS));
  throw new UsageError(
    `Unknown command "${command}": ${alike ? `did you mean bao ${alike}?` : 'bao --help lists them.'}`,
  );
}

/** Exit code and text for what a command threw: one sentence for the operator's mistakes, a stack for ours. */
export function explainFailure(error: unknown): { exitCode: number; text: string } {
  if (error instanceof ConfigError) return { exitCode: error.exitCode, text: `bao: ${error.message}` };
  if (error instanceof LoadError || error instanceof ValidationError || isTold(error))
    return { exitCode: 1, text: `bao: ${error.message}` };
  return { exitCode: 1, text: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

/** A core that can't start says why in one sentence, and its stack with --log-level debug. Told by its name: importing the class would load the engine. */
function isTold(error: unknown): error is Error {
  return error instanceof Error && error.name === 'CoreStartupError';
}
