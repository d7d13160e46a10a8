import { notSupported } from '../errors.ts';
import type { RequestMessage } from './chat-messages.ts';
import { isObject } from './fields.ts';
import { wrongValue } from './wrong-value.ts';

export type TextPart = { type: 'text'; text: string };
type Content = string | TextPart[];

/** What a conversation of the Responses API consists of, as far as a model that reads and writes text goes. */
export type ConversationItem =
  | { type: 'message'; role: 'user' | 'assistant' | 'system' | 'developer'; content: Content }
  | { type: 'reasoning'; text: string }
  | { type: 'function_call'; callId: string; name: string; arguments: string }
  | { type: 'function_call_output'; callId: string; content: Content };

/** An item of the input, or the id of one that this server has made before. */
export type InputItem = ConversationItem | { type: 'item_reference'; id: string };

const ROLES = ['user', 'assistant', 'system', 'developer'] as const;
const TEXT_TYPES = new Set<unknown>(['input_text', 'output_text', 'text', 'summary_text', 'reasoning_text']);

/** @throws ValidationError that names the item at fault */
export function parseInput(input: unknown): InputItem[] {
  if (typeof input === 'string') return [{ type: 'message', role: 'user', content: input }];
  if (!Array.isArray(input)) throw wrongValue('input', 'a string or a list of items', input);
  return input.map((item: unknown, i) => parseItem(item, `input[${i}]`));
}

function parseItem(item: unknown, field: string): InputItem {
  if (!isObject(item)) throw wrongValue(field, 'an object', item);
  const type: unknown = item.type ?? ('role' in item ? 'message' : 'item_reference');
  switch (type) {
    case 'message':
      return { type, role: roleOf(item.role, field), content: contentOf(item.content, `${field}.content`) };
    case 'function_call':
      return {
        type,
        callId: stringOf(item, 'call_id', field),
        name: stringOf(item, 'name', field),
        arguments: stringOf(item, 'arguments', field),
      };
    case 'function_call_output':
      return {
        type,
        callId: stringOf(item, 'call_id', field),
        content: contentOf(item.output, `${field}.output`),
      };
    case 'reasoning':
      return reasoningItem(item, field);
    case 'item_reference':
      return { type, id: stringOf(item, 'id', field) };
    default:
      throw notSupported(
        `${field}.type`,
        `items of type ${String(JSON.stringify(type)).slice(0, 40)} mean nothing here`,
      );
  }
}

/** What the model has thought; where only a summary is left, that. */
function reasoningItem(item: Record<string, unknown>, field: string): InputItem {
  if (item.encrypted_content != null) throw notSupported(`${field}.encrypted_content`);
  const parts = Array.isArray(item.content) && item.content.length > 0 ? item.content : (item.summary ?? []);
  const content = contentOf(parts, `${field}.content`);
  return { type: 'reasoning', text: typeof content === 'string' ? content : textOf(content) };
}

function textOf(parts: TextPart[]): string {
  return parts.map(({ text }) => text).join('\n');
}

function roleOf(given: unknown, field: string): (typeof ROLES)[number] {
  const role = ROLES.find((each) => each === given);
  if (role === undefined) throw wrongValue(`${field}.role`, `one of ${ROLES.join(', ')}`, given);
  return role;
}

/** One text is a plain string: not every template knows parts. */
function contentOf(given: unknown, field: string): Content {
  if (typeof given === 'string') return given;
  if (!Array.isArray(given)) throw wrongValue(field, 'a string or a list of parts', given);
  const parts = given.map((part: unknown, i) => textPart(part, `${field}[${i}]`));
  return parts.length === 1 ? parts[0]!.text : parts;
}

function textPart(part: unknown, field: string): TextPart {
  if (!isObject(part) || typeof part.type !== 'string') throw wrongValue(field, 'a part with a type', part);
  if (part.type === 'refusal') return { type: 'text', text: stringOf(part, 'refusal', field) };
  if (!TEXT_TYPES.has(part.type))
    throw notSupported(field, `parts of type ${part.type.slice(0, 40)} can't be read here`);
  return { type: 'text', text: stringOf(part, 'text', field) };
}

function stringOf(item: Record<string, unknown>, name: string, field: string): string {
  const value = item[name];
  if (typeof value !== 'string') throw wrongValue(`${field}.${name}`, 'a string', value);
  return value;
}

/** Items as the messages that chat templates know: an assistant's reasoning, text and calls that follow each other are one message. */
export function toMessages(instructions: string | null, items: readonly ConversationItem[]): RequestMessage[] {
  const messages: RequestMessage[] = instructions === null ? [] : [{ role: 'system', content: instructions }];
  const begin = (): RequestMessage => {
    const message = { role: 'assistant', content: '' };
    messages.push(message);
    return message;
  };
  const last = () => {
    const message = messages.at(-1);
    return message?.role === 'assistant' ? message : null;
  };
  for (const item of items) {
    if (item.type === 'reasoning') {
      begin().reasoning = item.text;
    } else if (item.type === 'function_call') {
      const message = last() ?? begin();
      const call = { id: item.callId, type: 'function', function: { name: item.name, arguments: item.arguments } };
      message.tool_calls = [...(message.tool_calls ?? []), call];
    } else if (item.type === 'function_call_output') {
      messages.push({ role: 'tool', tool_call_id: item.callId, content: item.content });
    } else if (item.role === 'assistant') {
      const begun = last();
      const message = begun?.content === '' && begun.tool_calls == null ? begun : begin();
      message.content = item.content;
    } else {
      messages.push({ role: item.role, content: item.content });
    }
  }
  return messages;
}
