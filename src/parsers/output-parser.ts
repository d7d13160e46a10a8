import { isJson } from './json-value-scanner.ts';
import { collectEvents, type OutputEvent, type ParsedMessage } from './output-events.ts';
import type { ReasoningFormat, ReasoningParser } from './reasoning/reasoning-parser.ts';
import type { FunctionDefinition, ToolFormat, ToolParser } from './tools/tool-parser.ts';

/** What is to be looked for in the answers to one request. */
export interface OutputParserOptions {
  /** null: reasoning is not told from content. */
  reasoning: ReasoningFormat | null;
  /** Reasoning is left out. */
  dropsReasoning: boolean;
  /** The prompt as text: it may have begun or ended the reasoning. */
  promptText: string;
  /** Variables of the chat template. */
  templateKwargs: Readonly<Record<string, unknown>>;
  /** null: content is never a call. */
  tools: ToolFormat | null;
  functions: readonly FunctionDefinition[];
  /** false: calls behind the first are left out. */
  parallelToolCalls: boolean;
  newToolCallId(): string;
}

/** One choice's text to events: reasoning first, tool calls in what follows. Independent of how the text is cut, and linear in it. */
export class OutputParser {
  #events: OutputEvent[] = [];
  readonly #reasoning: ReasoningParser | null;
  readonly #tools: ToolParser | null;
  #numCalls = 0;
  /** White space at the beginning or behind a call, which is content only if more of it follows. */
  #blank = '';
  /** There was content since the last call. */
  #hasContent = false;

  constructor(private readonly options: OutputParserOptions) {
    const { reasoning, tools, functions } = options;
    this.#tools =
      tools?.create(
        {
          content: (text) => this.#content(text),
          startCall: (name, id) => this.#startCall(name, id),
          arguments: (json) => this.#arguments(json),
        },
        functions,
      ) ?? null;
    this.#reasoning =
      reasoning?.create(
        { reasoning: (text) => this.#addReasoning(text), content: (text) => this.#answer(text) },
        options,
      ) ?? null;
  }

  /** Tool calls that have begun. */
  get numToolCalls(): number {
    return this.#numCalls;
  }

  push(text: string): OutputEvent[] {
    if (text === '') return [];
    if (this.#reasoning !== null) this.#reasoning.push(text);
    else this.#answer(text);
    return this.#take();
  }

  /** Nothing follows. */
  finish(): OutputEvent[] {
    this.#reasoning?.finish();
    this.#tools?.finish();
    if (this.#numCalls === 0 && this.#blank !== '') this.#add({ type: 'content', text: this.#blank });
    return this.#take();
  }

  #answer(text: string): void {
    if (this.#tools !== null) this.#tools.push(text);
    else this.#content(text);
  }

  #addReasoning(text: string): void {
    if (this.options.dropsReasoning || text === '') return;
    this.#add({ type: 'reasoning', text });
  }

  #content(text: string): void {
    if (text === '') return;
    if (this.#tools !== null && !this.#hasContent && /^\s*$/.test(text)) {
      this.#blank += text;
      return;
    }
    this.#add({ type: 'content', text: this.#blank + text });
    this.#blank = '';
    this.#hasContent = true;
  }

  #startCall(name: string, id?: string): void {
    this.#blank = '';
    this.#hasContent = false;
    const index = this.#numCalls++;
    if (this.#isLeftOut(index)) return;
    this.#events.push({ type: 'tool-call', index, id: id ?? this.#newCallId(), name });
  }

  #arguments(text: string): void {
    const index = this.#numCalls - 1;
    if (text !== '' && !this.#isLeftOut(index)) this.#add({ type: 'arguments', index, text });
  }

  #isLeftOut(index: number): boolean {
    return index > 0 && !this.options.parallelToolCalls;
  }

  #newCallId(): string {
    return this.options.tools?.newCallId?.() ?? this.options.newToolCallId();
  }

  /** Pieces of one kind that follow each other become one event. */
  #add(event: Exclude<OutputEvent, { type: 'tool-call' }>): void {
    const last = this.#events.at(-1);
    if (last?.type === event.type) last.text += event.text;
    else this.#events.push(event);
  }

  #take(): OutputEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }
}

/**
 * A whole answer at once. Unlike a stream, which can't take back what it told, an answer with a call whose arguments turn out not to be JSON has
 * no calls: all but the reasoning is content, as in vLLM.
 */
export function parseMessage(text: string, options: OutputParserOptions): ParsedMessage {
  const message = parseWith(text, options);
  if (message.toolCalls.every((call) => isJson(call.arguments))) return message;
  return parseWith(text, { ...options, tools: null });
}

function parseWith(text: string, options: OutputParserOptions): ParsedMessage {
  const parser = new OutputParser(options);
  return collectEvents([...parser.push(text), ...parser.finish()]);
}
