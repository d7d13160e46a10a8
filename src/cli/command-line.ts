import { EngineArgs } from '../config/engine-args.ts';
import { readEnvironment, readVariables } from '../config/environment.ts';
import type { FlagTable, FlagValuesOf } from '../config/flags/flag.ts';
import { FLAGS, FlagSet, type FlagValues, flagsOf } from '../config/flags/index.ts';
import { groupHelp } from './help.ts';
import { parseArgs } from './parse-args.ts';

const HELP_COLUMNS = 100;
/** The terminal belongs to what the command says; the engine's log is quiet unless it is asked for. */
const QUIET: Partial<FlagValues> = { logLevel: 'warning' };

/** A command with flags of its own, beside those of `bao serve` where it runs a model itself. */
export interface CommandSpec<Table extends FlagTable> {
  /** "bao chat [MODEL] [flags]" */
  readonly usage: string;
  /** One sentence. */
  readonly doc: string;
  readonly flags: Table;
  readonly takesEngineFlags: boolean;
}

export interface CommandLine<Table extends FlagTable> {
  values: FlagValuesOf<Table>;
  /** Flags of `bao serve`: command line over BAO_* variables over the `--config` file. */
  engine: Partial<FlagValues>;
  positionals: string[];
}

/**
 * Reads a command's flags; of two of one name the command's own counts.
 *
 * @returns null where help is wanted
 * @throws UsageError
 */
export async function parseCommandLine<const Table extends FlagTable>(
  command: CommandSpec<Table>,
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Promise<CommandLine<Table> | null> {
  const own = ownFlags(command);
  const set = new FlagSet(command.takesEngineFlags ? [...FLAGS, ...own] : own);
  const { given, positionals, configFile, help } = await parseArgs(argv, set);
  if (help !== null) return null;

  const values: Record<string, unknown> = {};
  const variables = readVariables(own, environment);
  for (const { field, spec } of own) {
    values[field] = given[field] ?? variables[field] ?? spec.default;
    delete given[field];
  }
  const engine = command.takesEngineFlags
    ? { ...QUIET, ...(await readConfig(configFile)), ...readEnvironment(environment), ...given }
    : { ...QUIET, ...given };
  return { values: values as FlagValuesOf<Table>, engine, positionals };
}

/** The text for `--help`. */
export function commandHelp(command: CommandSpec<FlagTable>, columns = HELP_COLUMNS): string {
  const own = ownFlags(command);
  const engine = command.takesEngineFlags ? '\nAll flags of bao serve count too: bao serve --help.\n' : '';
  const flags = own.length === 0 ? '' : `\n${groupHelp(own[0]!.group, own, columns)}`;
  return `Usage: ${command.usage}\n\n${command.doc}\n${flags}${engine}`;
}

/** Reads the command line, or prints its help and gives null. Throws UsageError. */
export async function commandLineOrHelp<const Table extends FlagTable>(
  command: CommandSpec<Table>,
  argv: readonly string[],
): Promise<CommandLine<Table> | null> {
  const line = await parseCommandLine(command, argv);
  if (line === null) process.stdout.write(commandHelp(command, process.stdout.columns));
  return line;
}

function ownFlags({ flags }: CommandSpec<FlagTable>) {
  return flagsOf([{ config: 'Options', key: '', doc: 'of this command', flags }]);
}

async function readConfig(path: string | null): Promise<Partial<FlagValues>> {
  if (path === null) return {};
  const { readConfigFile } = await import('../config/config-file.ts');
  return readConfigFile(path);
}

/** The engine of a command that takes a model as its only word. */
export function engineArgsOf(engine: Partial<FlagValues>, model: string | undefined): EngineArgs {
  return new EngineArgs(model === undefined ? engine : { ...engine, model });
}
