import { existsSync, readFileSync } from 'node:fs';
import { ConfigError } from './config-error.ts';

/** Jinja text of `--chat-template`, which names a file or is the text itself. Throws ConfigError for what is neither. */
export function readChatTemplate(fileOrText: string | null): string | null {
  if (fileOrText === null) return null;
  if (!/[{}\n]/.test(fileOrText) && !existsSync(fileOrText)) {
    throw new ConfigError(`--chat-template: ${fileOrText} is neither a file nor Jinja text.`);
  }
  if (/\n/.test(fileOrText) || !existsSync(fileOrText)) return fileOrText;
  try {
    return readFileSync(fileOrText, 'utf8');
  } catch (error) {
    throw new ConfigError(`--chat-template: ${fileOrText} can't be read: ${(error as Error).message}.`);
  }
}
