import { notSupported } from '../errors.ts';
import type { RequestMessage } from './chat-messages.ts';
import { isObject } from './fields.ts';
import { wrongValue } from './wrong-value.ts';

type Block = Record<string, unknown>;
type Blocks = string | Block[];
type TextPart = { type: 'text'; text: string };

/**
 * Anthropic's messages as those that chat templates know: results of tools are messages of their own, calls and thinking belong to the assistant's.
 *
 * @throws ValidationError for a block that this server can't read
 */
export function toConversation(
  system: Blocks | null,
  messages: readonly { role: 'user' | 'assistant' | 'system'; content: Blocks }[],
): RequestMessage[] {
  const conversation: RequestMessage[] = [];
  if (system !== null && system.length > 0) {
    conversation.push({ role: 'system', content: joinedText(system, 'system') });
  }
  messages.forEach(({ role, content }, i) => {
    const field = `messages[${i}].content`;
    if (typeof content === 'string') conversation.push({ role, content });
    else if (role === 'assistant') conversation.push(assistantMessage(content, field));
    else conversation.push(...userMessages(role, content, field));
  });
  return conversation;
}

function joinedText(content: Blocks, field: string): string {
  if (typeof content === 'string') return content;
  return content.map((block, i) => textPart(block, `${field}[${i}]`).text).join('\n');
}

function textPart(block: unknown, field: string): TextPart {
  if (!isObject(block) || typeof block.type !== 'string') throw wrongValue(field, 'a block with a type', block);
  if (block.type !== 'text') throw notSupported(field, `blocks of type ${block.type.slice(0, 40)} can't be read here`);
  return { type: 'text', text: textOf(block, 'text', field) };
}

function textOf(block: Block, name: string, field: string): string {
  const text = block[name];
  if (typeof text !== 'string') throw wrongValue(`${field}.${name}`, 'a string', text);
  return text;
}

/** One text is a plain string: not every template knows parts. */
function contentOf(parts: TextPart[]): RequestMessage['content'] {
  return parts.length === 1 ? parts[0]!.text : parts;
}

function userMessages(role: 'user' | 'system', blocks: Block[], field: string): RequestMessage[] {
  const messages: RequestMessage[] = [];
  let parts: TextPart[] = [];
  const flush = () => {
    if (parts.length > 0) messages.push({ role, content: contentOf(parts) });
    parts = [];
  };
  blocks.forEach((block, i) => {
    const at = `${field}[${i}]`;
    if (block.type !== 'tool_result') {
      parts.push(textPart(block, at));
      return;
    }
    flush();
    const content = block.content ?? '';
    if (typeof content !== 'string' && !Array.isArray(content)) {
      throw wrongValue(`${at}.content`, 'a string or a list of blocks', content);
    }
    const id = textOf(block, 'tool_use_id', at);
    messages.push({ role: 'tool', tool_call_id: id, content: joinedText(content, `${at}.content`) });
  });
  flush();
  return messages;
}

function assistantMessage(blocks: Block[], field: string): RequestMessage {
  const parts: TextPart[] = [];
  const thoughts: string[] = [];
  const calls: NonNullable<RequestMessage['tool_calls']> = [];
  blocks.forEach((block, i) => {
    const at = `${field}[${i}]`;
    if (block.type === 'thinking') thoughts.push(textOf(block, 'thinking', at));
    else if (block.type === 'tool_use') calls.push(toolCall(block, at));
    else parts.push(textPart(block, at));
  });
  return {
    role: 'assistant',
    content: parts.length === 0 ? '' : contentOf(parts),
    ...(thoughts.length > 0 ? { reasoning: thoughts.join('\n') } : {}),
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
  };
}

function toolCall(block: Block, field: string): NonNullable<RequestMessage['tool_calls']>[number] {
  const { input } = block;
  if (!isObject(input)) throw wrongValue(`${field}.input`, 'an object', input);
  const name = textOf(block, 'name', field);
  return { id: textOf(block, 'id', field), type: 'function', function: { name, arguments: JSON.stringify(input) } };
}
