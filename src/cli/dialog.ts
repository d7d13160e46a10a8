import { createInterface } from 'node:readline';
import { UsageError } from '../config/config-error.ts';
import type { FlagTable } from '../config/flags/flag.ts';
import { type ApiClient, CLIENT_FLAGS, openApi } from './api-client.ts';
import { type CommandSpec, commandLineOrHelp } from './command-line.ts';

/** Flags of the commands that a person, or a pipe, talks with. */
export const DIALOG_FLAGS = {
  ...CLIENT_FLAGS,
  quick: {
    type: 'string',
    default: null,
    aliases: ['-q'],
    metavar: 'TEXT',
    help: 'Answer this and end; by default each line of standard input is answered.',
  },
  'max-tokens': { type: 'int', default: null, min: 1, metavar: 'N', help: 'Most tokens of an answer.' },
  temperature: { type: 'float', default: null, min: 0, max: 2, help: "Default: the model's own." },
} as const satisfies FlagTable;

/** Sampling fields of the flags, for a request's body. */
export function samplingFields({ maxTokens, temperature }: { maxTokens: number | null; temperature: number | null }) {
  return { ...(maxTokens === null ? {} : { max_tokens: maxTokens }), ...(temperature === null ? {} : { temperature }) };
}

type DialogTable = typeof DIALOG_FLAGS;
type DialogLine<Table extends FlagTable> = NonNullable<Awaited<ReturnType<typeof commandLineOrHelp<Table>>>>;

/**
 * Reads the command line, opens the model and answers `--quick`, or line by line what comes on standard input. A line that is refused ends
 * a pipe, and is told to a person, who may go on.
 *
 * @param start gives what answers a line, writing to standard output
 */
export async function runDialog<const Table extends DialogTable>(
  command: CommandSpec<Table>,
  argv: readonly string[],
  start: (api: ApiClient, values: DialogLine<Table>['values']) => (line: string) => Promise<void>,
): Promise<void> {
  const line = await commandLineOrHelp(command, argv);
  if (line === null) return;
  const { values, engine, positionals } = line;
  if (positionals.length > 1) throw new UsageError(`Unexpected argument "${positionals[1]}".`);
  const { url, modelName, apiKey, quick } = values as unknown as DialogLine<DialogTable>['values'];
  const api = await openApi({ url, modelName, apiKey, engine, model: positionals[0] });
  try {
    const answer = start(api, values);
    if (quick !== null) await answer(quick);
    else await answerLines(answer, process.stdin.isTTY === true);
  } finally {
    await api.close();
  }
}

async function answerLines(answer: (line: string) => Promise<void>, isWatched: boolean): Promise<void> {
  // On a terminal with a line to edit, a history and lines of any length, which the terminal itself does not have.
  const output = isWatched ? process.stdout : undefined;
  const lines = createInterface({ input: process.stdin, output, terminal: isWatched, prompt: '> ' });
  // A terminal in raw mode makes no signal of Ctrl-C.
  lines.on('SIGINT', () => {
    lines.close();
    process.kill(process.pid, 'SIGINT');
  });
  // Whose Ctrl-D comes while an answer is written is asked for nothing more.
  let isOpen = true;
  lines.on('close', () => {
    isOpen = false;
  });
  const prompt = () => {
    if (isWatched && isOpen) lines.prompt();
  };
  prompt();
  for await (const line of lines) {
    if (line.trim() !== '') {
      try {
        await answer(line);
      } catch (error) {
        if (!isWatched) throw error;
        process.stderr.write(`bao: ${(error as Error).message}\n`);
      }
    }
    prompt();
  }
  if (isWatched) process.stdout.write('\n');
}
