import * as v from 'valibot';
import type { ChatMessage } from '../../tokenizer/tokenizer.ts';
import { anyObject, boolean, list, literal, string } from './fields.ts';

const functionCall = v.looseObject(
  { name: string, arguments: v.optional(v.union([string, anyObject])) },
  'model_attributes_type: Input should be a valid dictionary',
);

/** A message of a conversation. Fields beyond these stay out of the template, as in vLLM. */
const chatMessage = v.object(
  {
    role: string,
    content: v.nullish(
      v.union(
        [string, list(v.union([string, anyObject]))],
        'string_type: Input should be a valid string or a list of content parts',
      ),
    ),
    name: v.nullish(string),
    tool_calls: v.nullish(
      list(
        v.looseObject(
          { id: v.nullish(string), function: functionCall },
          'dict_type: Input should be a valid dictionary',
        ),
      ),
    ),
    tool_call_id: v.nullish(string),
    reasoning: v.nullish(string),
    reasoning_content: v.nullish(string),
    tools: v.nullish(list(anyObject)),
  },
  'dict_type: Input should be a valid dictionary',
);

export const chatMessages = list(chatMessage);
export type RequestMessage = v.InferOutput<typeof chatMessage>;

export const toolDefinitions = list(
  v.object(
    {
      type: v.optional(literal('function'), 'function'),
      function: v.object(
        {
          name: string,
          description: v.nullish(string, null),
          parameters: v.nullish(anyObject, null),
          strict: v.nullish(boolean),
        },
        'model_attributes_type: Input should be a valid dictionary or object to extract fields from',
      ),
    },
    'model_attributes_type: Input should be a valid dictionary or object to extract fields from',
  ),
);
export type ToolDefinition = v.InferOutput<typeof toolDefinitions>[number];

/** The fields that templates know, as in vLLM: what else a message has stays out of the prompt. */
export function toTemplateMessages(messages: RequestMessage[]): ChatMessage[] {
  return messages.map((message) => {
    const rendered: ChatMessage = { role: message.role, content: message.content as ChatMessage['content'] };
    if (message.name != null) rendered.name = message.name;
    if (message.role === 'assistant') addAssistantFields(rendered, message);
    if (message.role === 'tool' && message.tool_call_id != null) rendered.tool_call_id = message.tool_call_id;
    if (message.role === 'developer' && message.tools != null) rendered.tools = message.tools;
    return rendered;
  });
}

function addAssistantFields(rendered: ChatMessage, message: RequestMessage): void {
  const reasoning = message.reasoning ?? message.reasoning_content;
  if (reasoning != null) {
    rendered.reasoning = reasoning;
    rendered.reasoning_content = reasoning;
  }
  if (message.tool_calls != null && message.tool_calls.length > 0) rendered.tool_calls = message.tool_calls;
}

/** The content of a message as one text. */
export function contentText(content: RequestMessage['content']): string {
  if (typeof content === 'string') return content;
  const texts = (content ?? []).map((part) => (typeof part === 'string' ? part : part.text));
  return texts.filter((text) => typeof text === 'string').join('\n');
}
