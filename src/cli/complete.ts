import { streamChoices } from './api-client.ts';
import { DIALOG_FLAGS, runDialog, samplingFields } from './dialog.ts';

const COMMAND = {
  usage: 'bao complete [MODEL] [flags]',
  doc: 'Let a model go on with a text: each line of standard input is a prompt.',
  flags: DIALOG_FLAGS,
  takesEngineFlags: true,
} as const;

/** `bao complete`. Throws UsageError, ConfigError, and what starting the engine throws. */
export async function complete(argv: readonly string[]): Promise<void> {
  await runDialog(COMMAND, argv, (api, values) => async (prompt) => {
    const body = { prompt, ...samplingFields(values) };
    for await (const { text } of streamChoices<{ text: string }>(api, '/completions', body)) process.stdout.write(text);
    process.stdout.write('\n');
  });
}
