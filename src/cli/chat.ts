import type { FlagTable } from '../config/flags/flag.ts';
import { streamChoices } from './api-client.ts';
import { DIALOG_FLAGS, runDialog, samplingFields } from './dialog.ts';

const FLAGS = {
  ...DIALOG_FLAGS,
  'system-prompt': { type: 'string', default: null, metavar: 'TEXT', help: 'What the conversation begins with.' },
} as const satisfies FlagTable;

const COMMAND = {
  usage: 'bao chat [MODEL] [flags]',
  doc: 'Talk with a model: each line of standard input is a message, all lines are one conversation.',
  flags: FLAGS,
  takesEngineFlags: true,
} as const;

interface ChatChoice {
  delta: { content?: string | null; reasoning?: string | null };
}

const DIM = '\x1b[2m';
const PLAIN = '\x1b[22m';

/** `bao chat`. Throws UsageError, ConfigError, and what starting the engine throws. */
export async function chat(argv: readonly string[]): Promise<void> {
  await runDialog(COMMAND, argv, (api, values) => {
    const messages: { role: string; content: string }[] = [];
    if (values.systemPrompt !== null) messages.push({ role: 'system', content: values.systemPrompt });
    return async (line) => {
      const asked = [...messages, { role: 'user', content: line }];
      const body = { messages: asked, ...samplingFields(values) };
      let content = '';
      for await (const { delta } of streamChoices<ChatChoice>(api, '/chat/completions', body)) {
        // For a person to watch; a pipe gets answers alone.
        if (delta.reasoning && process.stdout.isTTY) process.stdout.write(DIM + delta.reasoning + PLAIN);
        content += delta.content ?? '';
        process.stdout.write(delta.content ?? '');
      }
      process.stdout.write('\n');
      // A message that was refused is not part of the conversation.
      messages.splice(0, messages.length, ...asked, { role: 'assistant', content });
    };
  });
}
