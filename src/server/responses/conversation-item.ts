import type { OutputItem } from '../answers/response-body.ts';
import type { ConversationItem } from '../protocol/responses-input.ts';

/** What a model has answered, as a part of the conversation that goes on. */
export function conversationItem(item: OutputItem): ConversationItem {
  switch (item.type) {
    case 'message':
      return { type: 'message', role: 'assistant', content: item.content.map(({ text }) => text).join('') };
    case 'reasoning':
      return { type: 'reasoning', text: (item.content ?? []).map(({ text }) => text).join('') };
    case 'function_call':
      return { type: 'function_call', callId: item.call_id, name: item.name, arguments: item.arguments };
  }
}
