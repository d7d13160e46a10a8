import { ValidationError } from '../errors/validation-error.ts';
import type { ContentFormat } from './content-format.ts';
import type { ChatMessage, ContentPart } from './tokenizer.ts';

/** Part types that are text, and the field that holds it. */
const TEXT_FIELDS: Readonly<Record<string, string>> = {
  text: 'text',
  input_text: 'text',
  output_text: 'text',
  refusal: 'refusal',
  thinking: 'thinking',
};

/**
 * The messages in the form a template expects: content as one string (parts joined by newlines, absent content '') or as a list of text parts,
 * and the arguments of tool calls as objects, so that the template writes them its own way.
 *
 * @throws ValidationError for parts that are not text and arguments that are not JSON
 */
export function prepareMessages(messages: readonly ChatMessage[], format: ContentFormat): ChatMessage[] {
  return messages.map((message, index) => {
    const texts = contentTexts(message.content, `messages[${index}].content`);
    const content = format === 'string' ? texts.join('\n') : texts.map((text) => ({ type: 'text', text }));
    const prepared: ChatMessage = { ...message, content };
    if (Array.isArray(message.tool_calls)) {
      prepared.tool_calls = message.tool_calls.map((call, i) =>
        parseArguments(call, `messages[${index}].tool_calls[${i}]`),
      );
    }
    return prepared;
  });
}

function contentTexts(content: ChatMessage['content'], where: string): string[] {
  if (content === null || content === undefined) return [];
  if (typeof content === 'string') return [content];
  return content.map((part, index) => partText(part, `${where}[${index}]`));
}

function partText(part: ContentPart | string, where: string): string {
  if (typeof part === 'string') return part;
  const type: unknown = part.type ?? 'text';
  if (typeof type !== 'string') throw new ValidationError(`${where}: the type of a part is a string.`, where, part);
  const field = Object.hasOwn(TEXT_FIELDS, type) ? TEXT_FIELDS[type]! : null;
  if (field === null) {
    throw new ValidationError(
      `${where}: parts of type "${type}" are not supported, this model takes text only.`,
      where,
      part,
    );
  }
  const text = part[field];
  if (typeof text !== 'string') {
    throw new ValidationError(`${where}: a part of type "${type}" needs the string field "${field}".`, where, part);
  }
  return text;
}

function parseArguments(call: unknown, where: string): unknown {
  const fn = (call as { function?: unknown } | null)?.function;
  if (typeof fn !== 'object' || fn === null) return call;
  const given = (fn as { arguments?: unknown }).arguments;
  if (typeof given === 'object' && given !== null) return call;
  return { ...(call as object), function: { ...fn, arguments: parseJson(given, `${where}.function.arguments`) } };
}

function parseJson(text: unknown, where: string): unknown {
  if (text === undefined || text === null || text === '') return {};
  try {
    if (typeof text === 'string') return JSON.parse(text);
  } catch {
    // Told below, as any other wrong value.
  }
  throw new ValidationError(`${where} is not valid JSON.`, where, text);
}
