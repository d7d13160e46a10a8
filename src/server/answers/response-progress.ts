import type { CompletionOutput, RequestOutput } from '../../engine/engine-client.ts';
import type { OutputEvent } from '../../parsers/output-events.ts';
import type { ReasoningTokenCounter } from '../../parsers/reasoning/count-reasoning-tokens.ts';
import type { ApiError } from '../errors.ts';
import { type OutputStream, outputStream } from '../generation/output-parsing.ts';
import { StreamInterval } from '../generation/stream-interval.ts';
import {
  callItem,
  completeResponse,
  type LogprobEntry,
  logprobEntries,
  messageItem,
  newItemId,
  type ResponseBody,
  type ResponseFormat,
  reasoningItem,
  textContent,
} from './response-body.ts';

/** The item that grows. */
type OpenItem =
  | { type: 'reasoning'; id: string; text: string }
  | { type: 'message'; id: string; text: string; logprobs: LogprobEntry[] }
  | { type: 'function_call'; id: string; callId: string; name: string; text: string };

/**
 * A response in the making: outputs of the engine become its items, and events that tell of each change. An event's place among all that were
 * given is its `sequence_number`.
 */
export class ResponseProgress {
  readonly #output: OutputStream;
  readonly #interval: StreamInterval;
  readonly #counter: ReasoningTokenCounter | null;
  #sequence = 0;
  #open: OpenItem | null = null;
  /** Log probabilities of tokens whose text is not out yet. */
  #logprobs: LogprobEntry[] = [];
  #numPromptTokens = 0;
  #numCachedTokens = 0;
  #numTokens = 0;
  #finishReason: CompletionOutput['finishReason'] = null;

  constructor(
    /** As it stands; items are added once they are whole. */
    readonly body: ResponseBody,
    private readonly format: ResponseFormat,
    interval: number,
  ) {
    this.#output = outputStream(format.parsing);
    this.#counter = format.parsing?.tokenCounter() ?? null;
    this.#interval = new StreamInterval(interval);
  }

  start(): string[] {
    const created = this.#responseEvent('response.created');
    return [created, this.#responseEvent(this.body.status === 'queued' ? 'response.queued' : 'response.in_progress')];
  }

  push(output: RequestOutput): string[] {
    const events: string[] = [];
    if (this.body.status === 'queued') {
      this.body.status = 'in_progress';
      events.push(this.#responseEvent('response.in_progress'));
    }
    this.#numPromptTokens = output.promptTokenIds.length;
    this.#numCachedTokens = output.numCachedTokens;
    for (const delta of output.outputs) {
      const due = this.#interval.push(delta);
      if (due !== null) events.push(...this.#pushDelta(due));
    }
    return events;
  }

  /** vLLM closes with `response.completed` also what was cut short; its status says so. */
  finish(): string[] {
    const events = this.#close();
    completeResponse(this.body, this.#finishReason, {
      inputTokens: this.#numPromptTokens,
      cachedTokens: this.#numCachedTokens,
      outputTokens: this.#numTokens,
      reasoningTokens: this.#counter?.count ?? 0,
    });
    events.push(this.#responseEvent('response.completed'));
    return events;
  }

  fail({ status, message }: ApiError): string[] {
    this.body.status = 'failed';
    this.body.error = { code: status < 500 ? 'invalid_prompt' : 'server_error', message };
    return [this.#responseEvent('response.failed')];
  }

  #pushDelta(delta: CompletionOutput): string[] {
    this.#numTokens += delta.tokenIds.length;
    this.#finishReason = delta.finishReason;
    this.#counter?.push(delta.tokenIds);
    this.#addLogprobs(logprobEntries(delta, this.format.logprobs));
    return this.#output.push(delta.text, delta.finishReason !== null).flatMap((event) => this.#part(event));
  }

  #part(event: OutputEvent): string[] {
    switch (event.type) {
      case 'reasoning':
        return [...this.#enterReasoning(), this.#grow('response.reasoning_text.delta', event.text)];
      case 'content':
        return [...this.#enterMessage(), this.#growMessage(event.text)];
      case 'tool-call':
        return this.#enterCall(event.id, event.name);
      case 'arguments':
        return [this.#grow('response.function_call_arguments.delta', event.text)];
    }
  }

  #enterReasoning(): string[] {
    if (this.#open?.type === 'reasoning') return [];
    const events = this.#close();
    const id = newItemId('rs');
    this.#open = { type: 'reasoning', id, text: '' };
    events.push(
      this.#event('response.output_item.added', {
        item: { type: 'reasoning', id, summary: [], status: 'in_progress' },
      }),
      this.#event('response.content_part.added', { part: { type: 'reasoning_text', text: '' } }),
    );
    return events;
  }

  #enterMessage(): string[] {
    if (this.#open?.type === 'message') return [];
    const events = this.#close();
    const id = newItemId('msg');
    this.#open = { type: 'message', id, text: '', logprobs: [] };
    const item = { type: 'message', id, role: 'assistant', status: 'in_progress', content: [] };
    events.push(
      this.#event('response.output_item.added', { item }),
      this.#event('response.content_part.added', { part: textContent('', []) }),
    );
    return events;
  }

  #enterCall(callId: string, name: string): string[] {
    const events = this.#close();
    const id = newItemId('fc');
    this.#open = { type: 'function_call', id, callId, name, text: '' };
    const item = callItem(id, { id: callId, name, arguments: '' }, 'in_progress');
    events.push(this.#event('response.output_item.added', { item }));
    return events;
  }

  #grow(type: string, delta: string): string {
    this.#open!.text += delta;
    return this.#event(type, { delta });
  }

  #growMessage(delta: string): string {
    const logprobs = this.#takeLogprobs();
    this.#open!.text += delta;
    return this.#event('response.output_text.delta', { delta, logprobs });
  }

  /** Those of reasoning and calls are not told: of these only what came with the last output may be text that follows. */
  #addLogprobs(entries: LogprobEntry[]): void {
    const isText = this.#open === null || this.#open.type === 'message';
    this.#logprobs = isText ? [...this.#logprobs, ...entries] : entries;
  }

  #takeLogprobs(): LogprobEntry[] {
    const taken = this.#logprobs;
    this.#logprobs = [];
    if (this.#open?.type === 'message') this.#open.logprobs.push(...taken);
    return taken;
  }

  /** Events of the open item's end; the item is whole then. */
  #close(): string[] {
    const open = this.#open;
    if (open === null) return [];
    if (open.type === 'message') this.#takeLogprobs();
    const events = this.#doneEvents(open);
    this.#open = null;
    return events;
  }

  #doneEvents(open: OpenItem): string[] {
    const { id, text } = open;
    if (open.type === 'function_call') {
      const isCut = this.#finishReason === 'length';
      const call = { id: open.callId, name: open.name, arguments: text };
      const item = callItem(id, call, isCut ? 'incomplete' : 'completed');
      const done = { name: open.name, arguments: text };
      return [this.#event('response.function_call_arguments.done', done), this.#itemDone(item)];
    }
    if (open.type === 'reasoning') {
      return [
        this.#event('response.reasoning_text.done', { text }),
        this.#event('response.content_part.done', { part: { type: 'reasoning_text', text } }),
        this.#itemDone({ ...reasoningItem(id, text), status: 'completed' }),
      ];
    }
    const { logprobs } = open;
    return [
      this.#event('response.output_text.done', { text, logprobs }),
      this.#event('response.content_part.done', { part: textContent(text, logprobs) }),
      this.#itemDone(messageItem(id, text, logprobs)),
    ];
  }

  #itemDone(item: ResponseBody['output'][number]): string {
    const event = this.#event('response.output_item.done', { item });
    this.body.output.push(item);
    return event;
  }

  #responseEvent(type: string): string {
    return sse({ type, sequence_number: this.#sequence++, response: this.body });
  }

  /** An event about the open item, with where it is. */
  #event(type: string, members: object): string {
    const { type: itemType, id } = this.#open!;
    const isWhole = type.startsWith('response.output_item.');
    return sse({
      type,
      sequence_number: this.#sequence++,
      output_index: this.body.output.length,
      ...(isWhole ? {} : { item_id: id }),
      ...(isWhole || itemType === 'function_call' ? {} : { content_index: 0 }),
      ...members,
    });
  }
}

function sse(event: { type: string; sequence_number: number; [member: string]: unknown }): string {
  return `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}
