import type { CompletionOutput, RequestOutput } from '../../engine/engine-client.ts';
import type { OutputEvent } from '../../parsers/output-events.ts';
import type { ApiError } from '../errors.ts';
import { type OutputStream, outputStream } from '../generation/output-parsing.ts';
import type { StreamEncoder } from '../generation/stream-generation.ts';
import { StreamInterval } from '../generation/stream-interval.ts';
import { type MessageFormat, messageError, newSignature, stopMembers, usageMembers } from './message-answer.ts';

type BlockType = 'thinking' | 'text' | 'tool_use';

/** Events of Anthropic's message stream: the message, then one content block after the other, each opened, grown and closed. */
export class MessageStreamEncoder implements StreamEncoder {
  readonly #output: OutputStream;
  readonly #interval: StreamInterval;
  #index = -1;
  /** The block that grows. */
  #open: BlockType | null = null;
  #hasCalls = false;
  #numTokens = 0;
  #numCachedTokens = 0;
  #last: CompletionOutput | null = null;

  constructor(
    private readonly format: MessageFormat,
    interval: number,
  ) {
    this.#output = outputStream(format.parsing);
    this.#interval = new StreamInterval(interval);
  }

  start(): string {
    const { id, model } = this.format;
    const message = {
      ...{ id, type: 'message', role: 'assistant', content: [], model },
      ...{ stop_reason: null, stop_sequence: null },
      // What the cache has is known with the first output only.
      usage: { input_tokens: this.format.numPromptTokens, output_tokens: 0 },
    };
    return event('message_start', { message });
  }

  encode(_requestIndex: number, { outputs, numCachedTokens }: RequestOutput): string {
    this.#numCachedTokens = numCachedTokens;
    let events = '';
    for (const delta of outputs) {
      const due = this.#interval.push(delta);
      if (due === null) continue;
      this.#numTokens += due.tokenIds.length;
      this.#last = due;
      for (const part of this.#output.push(due.text, due.finishReason !== null)) events += this.#part(part);
    }
    return events;
  }

  end(): string {
    const delta = stopMembers(this.#last!, this.#hasCalls);
    const usage = usageMembers(this.format, this.#numTokens, this.#numCachedTokens);
    return this.#close() + event('message_delta', { delta, usage }) + event('message_stop', {});
  }

  fail(error: ApiError): string {
    return `event: error\ndata: ${JSON.stringify(messageError(error))}\n\n`;
  }

  #part(part: OutputEvent): string {
    switch (part.type) {
      case 'reasoning':
        return (
          this.#enter('thinking', { type: 'thinking', thinking: '' }) +
          this.#delta({ type: 'thinking_delta', thinking: part.text })
        );
      case 'content':
        return this.#enter('text', { type: 'text', text: '' }) + this.#delta({ type: 'text_delta', text: part.text });
      case 'tool-call':
        this.#hasCalls = true;
        return this.#close() + this.#enter('tool_use', { type: 'tool_use', id: part.id, name: part.name, input: {} });
      case 'arguments':
        return this.#delta({ type: 'input_json_delta', partial_json: part.text });
    }
  }

  /** Opens a block unless one of this type grows already. */
  #enter(type: BlockType, block: object): string {
    if (this.#open === type) return '';
    const closed = this.#close();
    this.#open = type;
    this.#index++;
    return closed + event('content_block_start', { content_block: block, index: this.#index });
  }

  #delta(delta: object): string {
    return event('content_block_delta', { delta, index: this.#index });
  }

  #close(): string {
    if (this.#open === null) return '';
    const signature =
      this.#open === 'thinking' ? this.#delta({ type: 'signature_delta', signature: newSignature() }) : '';
    this.#open = null;
    return signature + event('content_block_stop', { index: this.#index });
  }
}

function event(type: string, members: object): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...members })}\n\n`;
}
