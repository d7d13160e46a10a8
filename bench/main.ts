import { explainFailure } from '../src/cli/run-command.ts';
import { UsageError } from '../src/config/config-error.ts';
import { closest } from '../src/config/flags/unknown-flag.ts';
import { type BenchCommand, commandHelp, parseCommand } from './command.ts';
import { COMMANDS } from './commands/index.ts';

const HELP_COLUMNS = 100;

/** `bun bench [COMMAND] [flags]`. Throws UsageError, and what the command throws. */
async function runBench(argv: readonly string[]): Promise<void> {
  const [name = 'overview', ...rest] = argv;
  if (name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(mainHelp());
    return;
  }
  const command = await findCommand(name);
  const parsed = await parseCommand(command, rest);
  if (parsed.help) process.stdout.write(commandHelp(command, process.stdout.columns ?? HELP_COLUMNS));
  else await command.run(parsed.values, parsed.engine);
}

async function findCommand(name: string): Promise<BenchCommand> {
  const load = COMMANDS[name]?.load;
  if (load !== undefined && Object.hasOwn(COMMANDS, name)) return load();
  const [alike] = await closest(name, Object.keys(COMMANDS));
  const hint = alike === undefined ? 'bun bench --help lists them' : `did you mean bun bench ${alike}?`;
  throw new UsageError(`Unknown benchmark "${name}": ${hint}${hint.endsWith('?') ? '' : '.'}`);
}

function mainHelp(): string {
  const lines = Object.entries(COMMANDS).map(([name, { doc }]) => `  ${name.padEnd(12)}${doc}\n`);
  return `Usage: bun bench [COMMAND] [flags]\n\nCommands\n${lines.join('')}\nbun bench COMMAND --help lists a command's flags.\n`;
}

try {
  await runBench(process.argv.slice(2));
  // Not left to the event loop: sockets and Workers that are kept for reuse would keep the process.
  process.exit(0);
} catch (error) {
  const { exitCode, text } = explainFailure(error);
  process.stderr.write(`${text}\n`);
  process.exit(exitCode);
}
