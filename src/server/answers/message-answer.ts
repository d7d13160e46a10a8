import type { CompletionOutput, RequestOutput } from '../../engine/engine-client.ts';
import type { ApiError } from '../errors.ts';
import { type OutputParsing, parseOutput } from '../generation/output-parsing.ts';
import { randomId } from '../request-id.ts';

/** How a message of Anthropic's API is written; the same for the answer in one piece and for the stream. */
export interface MessageFormat {
  id: string;
  model: string;
  numPromptTokens: number;
  reportCachedTokens: boolean;
  /** Thinking and tool calls in the answer; null: all is text. */
  parsing: OutputParsing | null;
}

/** @returns the message that answers POST /v1/messages */
export function messageAnswer(output: RequestOutput, format: MessageFormat): object {
  const choice = output.outputs[0]!;
  const { reasoning, content, toolCalls } = parseOutput(format.parsing, choice.text);
  const blocks: object[] = [];
  if (reasoning !== '') blocks.push({ type: 'thinking', thinking: reasoning, signature: newSignature() });
  if (content !== '') blocks.push({ type: 'text', text: content });
  for (const { id, name, arguments: json } of toolCalls) {
    blocks.push({ type: 'tool_use', id, name, input: JSON.parse(json) });
  }
  return {
    id: format.id,
    type: 'message',
    role: 'assistant',
    content: blocks,
    model: format.model,
    ...stopMembers(choice, toolCalls.length > 0),
    usage: usageMembers(format, choice.tokenIds.length, output.numCachedTokens),
  };
}

/** Why the message ended, in Anthropic's words. */
export function stopMembers({ finishReason, stopReason }: CompletionOutput, hasCalls: boolean) {
  if (finishReason === 'length') return { stop_reason: 'max_tokens', stop_sequence: null };
  if (typeof stopReason === 'string') return { stop_reason: 'stop_sequence', stop_sequence: stopReason };
  return { stop_reason: hasCalls ? 'tool_use' : 'end_turn', stop_sequence: null };
}

/** As in Anthropic's API, `input_tokens` are those that no cache had. */
export function usageMembers(format: MessageFormat, outputTokens: number, numCachedTokens: number) {
  const cached = format.reportCachedTokens ? numCachedTokens : 0;
  return {
    input_tokens: format.numPromptTokens - cached,
    output_tokens: outputTokens,
    ...(format.reportCachedTokens ? { cache_read_input_tokens: cached } : {}),
  };
}

/** Clients send it back with the thinking, and nothing here looks at it. */
export function newSignature(): string {
  return randomId() + randomId();
}

/** Anthropic's error object; types are vLLM's. */
export function messageError({ type, message }: ApiError): object {
  return { type: 'error', error: { type, message } };
}

export function messageErrorResponse(error: ApiError): Response {
  return Response.json(messageError(error), { status: error.status, headers: error.headers });
}
