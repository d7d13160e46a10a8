import { commandHelp as helpOf, parseCommandLine } from '../src/cli/command-line.ts';
import { UsageError } from '../src/config/config-error.ts';
import type { FlagTable, FlagValuesOf } from '../src/config/flags/flag.ts';
import type { FlagValues } from '../src/config/flags/index.ts';

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

/** Of a flag that takes whole numbers above 0; {@link parseSizes} reads them. */
export const SIZES = { type: 'list', separator: ',', metavar: 'SIZES' } as const;

/** @throws UsageError */
export function parseSizes(flag: string, texts: readonly string[]): number[] {
  const sizes = texts.filter((text) => text !== '').map(Number);
  if (sizes.some((size) => !Number.isInteger(size) || size < 1)) {
    throw new UsageError(`--${flag} takes whole numbers above 0, not "${texts.join(',')}".`);
  }
  return sizes;
}

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
  const line = await parseCommandLine(specOf(command), argv, environment);
  if (line === null) return { help: true };
  if (line.positionals.length > 0) throw new UsageError(`Unexpected argument "${line.positionals[0]}".`);
  return { help: false, values: line.values, engine: line.engine };
}

/** The text for `bun bench COMMAND --help`. */
export function commandHelp(command: BenchCommand, columns: number): string {
  return helpOf(specOf(command), columns);
}

function specOf({ name, doc, flags, takesEngineFlags }: BenchCommand) {
  return { usage: `bun bench ${name} [flags]`, doc, flags, takesEngineFlags };
}
