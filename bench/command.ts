import { groupHelp } from '../src/cli/help.ts';
import { parseArgs } from '../src/cli/parse-args.ts';
import { UsageError } from '../src/config/config-error.ts';
import { readEnvironment } from '../src/config/environment.ts';
import type { FlagTable, FlagValuesOf } from '../src/config/flags/flag.ts';
import { FLAGS, FlagSet, type FlagValues, flagsOf } from '../src/config/flags/index.ts';

/** Benchmarks speak for themselves: the engine's log is quiet unless it is asked for. */
const QUIET: Partial<FlagValues> = { logLevel: 'warning' };

/** A subcommand of `bun bench`. */
export interface BenchCommand<Table extends FlagTable = FlagTable> {
  readonly name: string;
  /** One sentence for the list of commands. */
  readonly doc: string;
  readonly flags: Table;
  /** Takes the flags of `bao serve` too. */
  readonly takesEngineFlags: boolean;
  /** @param engine the flags of `bao serve` that were given */
  run(values: FlagValuesOf<Table>, engine: Partial<FlagValues>): Promise<void>;
}

/** The flag that every command has. */
export const OUTPUT_JSON = {
  'output-json': {
    type: 'string',
    default: null,
    metavar: 'FILE',
    help: 'Also write the result to this file.',
  },
} as const satisfies FlagTable;

/** Keeps the types of a command's own flags, and gives the command as all are seen. */
export function defineCommand<const Table extends FlagTable>(command: BenchCommand<Table>): BenchCommand {
  return command as unknown as BenchCommand;
}

/** What a command line means for a command; help: its text is wanted, nothing else. */
export type ParsedCommand =
  | { help: true }
  | { help: false; values: FlagValuesOf<FlagTable>; engine: Partial<FlagValues> };

/**
 * Reads a command's flags. Flags of the engine have BAO_* variables behind them, as in `bao serve`.
 *
 * @throws UsageError
 */
export async function parseCommand(
  command: BenchCommand,
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<ParsedCommand> {
  const own = ownFlags(command);
  const set = new FlagSet(command.takesEngineFlags ? [...FLAGS, ...own] : own);
  const { given, positionals, configFile, help } = await parseArgs(argv, set);
  if (help !== null) return { help: true };
  if (configFile !== null) throw new UsageError('--config is for bao serve only.');
  if (positionals.length > 0) throw new UsageError(`Unexpected argument "${positionals[0]}".`);

  const values: Record<string, unknown> = {};
  for (const { field, spec } of own) {
    values[field] = given[field] ?? spec.default;
    delete given[field];
  }
  return {
    help: false,
    values: values as FlagValuesOf<FlagTable>,
    engine: { ...QUIET, ...(command.takesEngineFlags ? readEnvironment(environment) : {}), ...given },
  };
}

/** The text for `bun bench COMMAND --help`. */
export function commandHelp(command: BenchCommand, columns: number): string {
  const own = ownFlags(command);
  const engine = command.takesEngineFlags ? '\nAll flags of bao serve count too: bun run serve --help.\n' : '';
  return `Usage: bun bench ${command.name} [flags]\n\n${groupHelp(own[0]!.group, own, columns)}${engine}`;
}

function ownFlags(command: BenchCommand) {
  return flagsOf([{ config: command.name, key: command.name, doc: command.doc, flags: command.flags }]);
}
