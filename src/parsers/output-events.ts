/**
 * What a model's text turns out to be, in the order in which it is written; no endpoint's wire format. A tool call's arguments belong to the
 * call with that index, which has been started before. Pieces put together are the whole.
 */
export type OutputEvent =
  | { type: 'reasoning'; text: string }
  | { type: 'content'; text: string }
  | { type: 'tool-call'; index: number; id: string; name: string }
  | { type: 'arguments'; index: number; text: string };

/** A whole tool call. */
export interface ToolCall {
  id: string;
  name: string;
  /** JSON text, as the model wrote it where the model writes JSON. */
  arguments: string;
}

/** A whole message. */
export interface ParsedMessage {
  reasoning: string;
  content: string;
  toolCalls: ToolCall[];
}

/** Events of a whole answer put together. */
export function collectEvents(events: readonly OutputEvent[]): ParsedMessage {
  const reasoning: string[] = [];
  const content: string[] = [];
  const calls: { id: string; name: string; pieces: string[] }[] = [];
  for (const event of events) {
    if (event.type === 'reasoning') reasoning.push(event.text);
    else if (event.type === 'content') content.push(event.text);
    else if (event.type === 'tool-call') calls.push({ id: event.id, name: event.name, pieces: [] });
    else calls[event.index]!.pieces.push(event.text);
  }
  const toolCalls = calls.map(({ id, name, pieces }) => ({ id, name, arguments: pieces.join('') }));
  return { reasoning: reasoning.join(''), content: content.join(''), toolCalls };
}
