import type { ToolParserObservation } from '../../metrics/parser-metrics.ts';
import type { ParsedMessage } from '../../parsers/output-events.ts';
import { OutputParser, type OutputParserOptions, parseMessage } from '../../parsers/output-parser.ts';
import {
  ReasoningTokenCounter,
  type ReasoningTokens,
  reasoningTokens,
} from '../../parsers/reasoning/count-reasoning-tokens.ts';
import { resolveThinkingBudget } from '../../parsers/reasoning/thinking-budget.ts';
import { namedCall, requiredCalls } from '../../parsers/tools/forced.ts';
import type { ToolFormat } from '../../parsers/tools/tool-parser.ts';
import type { ThinkingBudgetParams } from '../../sampling/sampling-params.ts';
import type { StructuredOutputsParams } from '../../sampling/structured-outputs-params.ts';
import type { ChatCompletionRequest } from '../protocol/chat-completion.ts';
import type { ToolChoice } from '../protocol/tool-choice.ts';
import type { ServerContext } from '../server-context.ts';
import { chatTemplateKwargs } from './prompt.ts';

/** How the answers to one request are parsed; the same for an answer in one piece and for a stream. */
export class OutputParsing {
  constructor(
    private readonly options: OutputParserOptions,
    /** null: reasoning tokens can't be counted. */
    private readonly tokens: ReasoningTokens | null,
    private readonly toolChoice: ToolChoice,
    private readonly observe: (observation: Pick<ToolParserObservation, 'isStreaming' | 'hasToolCall'>) => void,
  ) {}

  /** Whether content without text is null; beside a call that the client has forced it is '', as in vLLM. */
  isContentAbsent(hasCalls: boolean): boolean {
    return hasCalls ? !this.#isForced : this.options.reasoning !== null;
  }

  /** A named function is no choice of the model's: the answer just stops. */
  get callsAreTheReason(): boolean {
    return typeof this.toolChoice === 'string';
  }

  get #isForced(): boolean {
    return this.toolChoice !== 'none' && this.toolChoice !== 'auto';
  }

  parse(text: string) {
    const message = parseMessage(text, this.options);
    this.#observeTools(false, message.toolCalls.length > 0);
    return message;
  }

  /** Parser for one choice of a stream. */
  stream(): OutputStream {
    const parser = new OutputParser(this.options);
    return {
      push: (text, isLast) => {
        const events = parser.push(text);
        if (isLast) events.push(...parser.finish());
        this.#observeTools(
          true,
          events.some(({ type }) => type === 'tool-call' || type === 'arguments'),
        );
        return events;
      },
      endsWithCalls: () => this.callsAreTheReason && parser.numToolCalls > 0,
    };
  }

  /** null: nothing to count, or it can't be done. */
  tokenCounter(): ReasoningTokenCounter | null {
    return this.tokens === null ? null : new ReasoningTokenCounter(this.tokens);
  }

  #observeTools(isStreaming: boolean, hasToolCall: boolean): void {
    if (this.options.tools !== null && !this.#isForced) this.observe({ isStreaming, hasToolCall });
  }
}

/** One choice's text to events, piece by piece. */
export interface OutputStream {
  push(text: string, isLast: boolean): ReturnType<OutputParser['push']>;
  /** The model has called tools, and that is why it stopped. */
  endsWithCalls(): boolean;
}

const plainStream: OutputStream = {
  push: (text) => (text === '' ? [] : [{ type: 'content', text }]),
  endsWithCalls: () => false,
};

/** Parser for one choice of a stream; without anything to look for all is content. */
export function outputStream(parsing: OutputParsing | null): OutputStream {
  return parsing?.stream() ?? plainStream;
}

/** A whole answer; without anything to look for all is content. */
export function parseOutput(parsing: OutputParsing | null, text: string): ParsedMessage {
  return parsing?.parse(text) ?? { reasoning: '', content: text, toolCalls: [] };
}

/** Where calls are told to, as far as their ids and the metrics go. */
export interface CallOrigin {
  requestType: ToolParserObservation['requestType'];
  newToolCallId(): string;
}

/** null: answers are content and nothing else. */
export function chatOutputParsing(
  context: ServerContext,
  request: ChatCompletionRequest,
  toolChoice: ToolChoice,
  promptText: string,
  { requestType, newToolCallId }: CallOrigin,
): OutputParsing | null {
  const { formats, engine, config, metrics } = context;
  const tools = toolFormat(context, toolChoice);
  const { reasoning } = formats;
  if (tools === null && reasoning === null) return null;
  const options: OutputParserOptions = {
    reasoning,
    dropsReasoning: request.include_reasoning === false,
    promptText,
    templateKwargs: chatTemplateKwargs(engine, request),
    tools,
    functions: (request.tools ?? []).map(({ function: { name, parameters } }) => ({
      name,
      parameters: parameters ?? null,
    })),
    parallelToolCalls: request.parallel_tool_calls ?? true,
    newToolCallId,
  };
  const tokens =
    reasoning?.marks === undefined || engine.tokenizer === null
      ? null
      : reasoningTokens(reasoning, options, engine.tokenizer, config.model.eosTokenIds);
  return new OutputParsing(options, tokens, toolChoice, (observation) =>
    metrics?.observeToolParser?.({ requestType, ...observation }),
  );
}

function toolFormat({ formats }: ServerContext, toolChoice: ToolChoice): ToolFormat | null {
  if (toolChoice === 'none') return null;
  if (toolChoice === 'auto' || formats.tools?.frame !== undefined) return formats.tools;
  return toolChoice === 'required' ? requiredCalls : namedCall(toolChoice.name);
}

/** Whether special tokens must stay in the text for the marks to be found. */
export function keepsSpecialTokens({ formats }: ServerContext, toolChoice: ToolChoice): boolean {
  const ofTools = toolChoice === 'auto' && formats.tools?.keepsSpecialTokens === true;
  return ofTools || formats.reasoning?.keepsSpecialTokens === true;
}

/** A constraint on the answer begins where its reasoning, if the prompt has begun one, ends. */
export function constraintBehindReasoning(
  context: ServerContext,
  request: ChatCompletionRequest,
  promptText: string,
  constraint: StructuredOutputsParams | null,
): StructuredOutputsParams | null {
  const { formats, engine } = context;
  const marks = formats.reasoning?.marks;
  if (constraint === null || marks === undefined || engine.tokenizer === null) return constraint;
  if (marks.start({ promptText, templateKwargs: chatTemplateKwargs(engine, request) }) !== 'inside') return constraint;
  return { ...constraint, startsAfter: [...engine.tokenizer.encode(marks.ends[0]!, { addSpecialTokens: false })] };
}

/** The limit of a chat's thinking, which its prompt or the format may have begun. Throws ValidationError where there can be none. */
export function chatThinkingBudget(
  { formats, engine }: ServerContext,
  request: ChatCompletionRequest,
  promptText: string,
  promptTokenIds: Int32Array,
): ThinkingBudgetParams | null {
  const start = formats.reasoning?.marks?.start({ promptText, templateKwargs: chatTemplateKwargs(engine, request) });
  const { reasoning: format } = formats;
  return resolveThinkingBudget(request.thinking_token_budget, {
    ...{ format, tokenizer: engine.tokenizer, promptTokenIds, start },
  });
}
