import type { CompletionOutput, RequestOutput } from '../../engine/engine-client.ts';
import type { ToolCall } from '../../parsers/output-events.ts';
import type { ReasoningTokenCounter } from '../../parsers/reasoning/count-reasoning-tokens.ts';
import type { SamplingParams } from '../../sampling/sampling-params.ts';
import { type OutputParsing, parseOutput } from '../generation/output-parsing.ts';
import type { ResponsesRequest } from '../protocol/responses.ts';
import type { FunctionTool } from '../protocol/responses-tools.ts';
import { randomId } from '../request-id.ts';
import { choiceLogprobs } from './chat-answer.ts';
import type { LogprobsFormat } from './logprobs-json.ts';

export type ResponseStatus = 'queued' | 'in_progress' | 'completed' | 'incomplete' | 'failed' | 'cancelled';
type ItemStatus = 'in_progress' | 'completed' | 'incomplete';

/** A token of an answer with its log probability, as OpenAI writes it. */
export type LogprobEntry = Readonly<Record<string, unknown>>;

export interface TextContent {
  type: 'output_text';
  text: string;
  annotations: [];
  logprobs: LogprobEntry[];
}

export type OutputItem =
  | { type: 'message'; id: string; role: 'assistant'; status: ItemStatus; content: TextContent[] }
  | {
      type: 'reasoning';
      id: string;
      summary: [];
      content?: { type: 'reasoning_text'; text: string }[];
      status?: ItemStatus;
    }
  | { type: 'function_call'; id: string; call_id: string; name: string; arguments: string; status: ItemStatus };

/** OpenAI's Response. What has no value is left out where the description doesn't ask for it. */
export interface ResponseBody {
  id: string;
  object: 'response';
  /** Seconds since the epoch. */
  created_at: number;
  status: ResponseStatus;
  background: boolean;
  error: { code: 'server_error' | 'invalid_prompt'; message: string } | null;
  incomplete_details: { reason: 'max_output_tokens' } | null;
  instructions: string | null;
  max_output_tokens: number | null;
  max_tool_calls: number | null;
  metadata: Record<string, unknown> | null;
  model: string;
  output: OutputItem[];
  parallel_tool_calls: boolean;
  previous_response_id: string | null;
  reasoning: object | null;
  service_tier: string;
  temperature: number;
  text?: object;
  tool_choice: unknown;
  tools: FunctionTool[];
  top_logprobs: number | null;
  top_p: number;
  truncation: 'auto' | 'disabled';
  usage?: ResponseUsage;
  user?: string;
  presence_penalty: number;
  frequency_penalty: number;
}

/** Members behind the first of each `details` are vLLM's, about tools that it runs itself. */
interface ResponseUsage {
  input_tokens: number;
  input_tokens_details: {
    cached_tokens: number;
    cache_write_tokens: number;
    input_tokens_per_turn: [];
    cached_tokens_per_turn: [];
  };
  output_tokens: number;
  output_tokens_details: {
    reasoning_tokens: number;
    tool_output_tokens: number;
    output_tokens_per_turn: [];
    tool_output_tokens_per_turn: [];
  };
  total_tokens: number;
}

/** How a response is written; the same for the answer in one piece and for the stream. */
export interface ResponseFormat {
  id: string;
  model: string;
  params: SamplingParams;
  /** null: not asked for. */
  logprobs: LogprobsFormat | null;
  /** Reasoning and calls in the answer; null: all is text. */
  parsing: OutputParsing | null;
}

/** A response that has no output yet. */
export function newResponse(request: ResponsesRequest, { id, model, params }: ResponseFormat): ResponseBody {
  const background = request.background === true;
  const hasTools = request.functions.length > 0;
  return {
    ...{ id, object: 'response', created_at: Math.floor(Date.now() / 1000) },
    ...{ status: background ? 'queued' : 'in_progress', background, error: null, incomplete_details: null },
    instructions: request.instructions,
    max_output_tokens: params.maxTokens,
    max_tool_calls: request.max_tool_calls,
    metadata: request.metadata,
    ...{ model, output: [] },
    parallel_tool_calls: request.parallel_tool_calls ?? true,
    previous_response_id: request.previous_response_id,
    reasoning: request.reasoning,
    service_tier: request.service_tier,
    temperature: params.temperature,
    ...(request.text === null ? {} : { text: request.text }),
    tool_choice: hasTools ? (request.tool_choice ?? 'auto') : 'none',
    tools: request.functions,
    top_logprobs: request.includesLogprobs ? (request.top_logprobs ?? 0) : null,
    top_p: params.topP,
    truncation: request.truncation ?? 'disabled',
    ...(request.user == null ? {} : { user: request.user }),
    presence_penalty: params.presencePenalty,
    frequency_penalty: params.frequencyPenalty,
  };
}

/** Why and with what numbers it ended. */
export function completeResponse(
  body: ResponseBody,
  finishReason: CompletionOutput['finishReason'],
  usage: { inputTokens: number; cachedTokens: number; outputTokens: number; reasoningTokens: number },
): void {
  const isCut = finishReason === 'length';
  body.status = isCut ? 'incomplete' : 'completed';
  body.incomplete_details = isCut ? { reason: 'max_output_tokens' } : null;
  body.usage = {
    input_tokens: usage.inputTokens,
    input_tokens_details: {
      cached_tokens: usage.cachedTokens,
      cache_write_tokens: 0,
      input_tokens_per_turn: [],
      cached_tokens_per_turn: [],
    },
    output_tokens: usage.outputTokens,
    output_tokens_details: {
      reasoning_tokens: usage.reasoningTokens,
      tool_output_tokens: 0,
      output_tokens_per_turn: [],
      tool_output_tokens_per_turn: [],
    },
    total_tokens: usage.inputTokens + usage.outputTokens,
  };
}

/** The whole response to a request that has finished. */
export function finishedResponse(body: ResponseBody, output: RequestOutput, format: ResponseFormat): ResponseBody {
  const choice = output.outputs[0]!;
  const { reasoning, content, toolCalls } = parseOutput(format.parsing, choice.text);
  if (reasoning !== '') body.output.push(reasoningItem(newItemId('rs'), reasoning));
  if (content !== '') body.output.push(messageItem(newItemId('msg'), content, logprobEntries(choice, format.logprobs)));
  for (const call of toolCalls) body.output.push(callItem(newItemId('fc'), call, 'completed'));
  const counter: ReasoningTokenCounter | null = format.parsing?.tokenCounter() ?? null;
  counter?.push(choice.tokenIds);
  completeResponse(body, choice.finishReason, {
    inputTokens: output.promptTokenIds.length,
    cachedTokens: output.numCachedTokens,
    outputTokens: choice.tokenIds.length,
    reasoningTokens: counter?.count ?? 0,
  });
  return body;
}

export function newItemId(prefix: 'msg' | 'rs' | 'fc'): string {
  return `${prefix}_${randomId()}`;
}

export function messageItem(id: string, text: string, logprobs: LogprobEntry[]): OutputItem {
  return { type: 'message', id, role: 'assistant', status: 'completed', content: [textContent(text, logprobs)] };
}

export function textContent(text: string, logprobs: LogprobEntry[]): TextContent {
  return { type: 'output_text', text, annotations: [], logprobs };
}

export function reasoningItem(id: string, text: string): OutputItem & { type: 'reasoning' } {
  return { type: 'reasoning', id, summary: [], content: [{ type: 'reasoning_text', text }] };
}

export function callItem(id: string, call: ToolCall, status: ItemStatus): OutputItem {
  return { type: 'function_call', id, call_id: call.id, name: call.name, arguments: call.arguments, status };
}

/** Empty where they were not asked for. */
export function logprobEntries(output: CompletionOutput, format: LogprobsFormat | null): LogprobEntry[] {
  if (format === null) return [];
  return (JSON.parse(choiceLogprobs(output, format)) as { content: LogprobEntry[] }).content;
}
