import type { CompletionOutput, RequestOutput } from '../../engine/engine-client.ts';
import type { StreamEncoder } from '../generation/stream-generation.ts';
import { StreamInterval } from '../generation/stream-interval.ts';
import { fingerprintMember, finishMembers, openAnswer, tokenIdsMember, usageMember } from './answer-head.ts';
import { type ChatFormat, choiceLogprobs } from './chat-answer.ts';
import type { StreamUsage } from './usage.ts';

/**
 * Turns the outputs of a request into the events of a chat completion stream: a chunk with the role for each choice, one for each delta, the
 * last of a choice with its finish_reason, and one with the usage where asked for. What is the same in all chunks is written once.
 */
export class ChatStreamEncoder implements StreamEncoder {
  readonly #open: string;
  readonly #numTokens: number[];
  readonly #intervals: StreamInterval[];
  /** Per choice: all of a plain chunk in front of the text. */
  readonly #plainHeads: string[];
  /** No chunk has more than text. */
  readonly #isPlain: boolean;
  #numPromptTokens = 0;
  #numCachedTokens = 0;
  #hasStarted = false;

  constructor(
    private readonly format: ChatFormat,
    private readonly usage: StreamUsage,
    interval: number,
  ) {
    const indexes = Array.from({ length: format.n }, (_, i) => i);
    this.#open = `data: ${openAnswer(format.head, 'chat.completion.chunk')}`;
    this.#numTokens = indexes.map(() => 0);
    this.#intervals = indexes.map(() => new StreamInterval(interval));
    this.#plainHeads = indexes.map((i) => `${this.#open}{"index":${i},"delta":{"content":`);
    this.#isPlain = format.logprobs === null && !format.returnTokenIds && !usage.continuous;
  }

  /** Events for one output of the engine; '' where there is nothing to tell yet. */
  encode(_requestIndex: number, output: RequestOutput): string {
    let events = this.#hasStarted ? '' : this.#start(output);
    for (const delta of output.outputs) {
      const due = this.#intervals[delta.index]!.push(delta);
      if (due !== null) events += this.#chunk(due);
    }
    return events;
  }

  /** Events after the last output. */
  end(): string {
    if (!this.usage.atEnd) return '';
    const usage = usageMember({
      promptTokens: this.#numPromptTokens,
      completionTokens: this.#numTokens.reduce((sum, count) => sum + count, 0),
      cachedTokens: this.format.reportCachedTokens ? this.#numCachedTokens : null,
    });
    return `${this.#open}]${usage}${fingerprintMember(this.format.head)}}\n\n`;
  }

  #start(output: RequestOutput): string {
    this.#hasStarted = true;
    this.#numPromptTokens = output.promptTokenIds.length;
    this.#numCachedTokens = output.numCachedTokens;
    const { role, echo, returnTokenIds, promptText } = this.format;
    const prompt =
      (returnTokenIds ? tokenIdsMember('prompt_token_ids', output.promptTokenIds) : '') +
      (promptText === null ? '' : `,"prompt_text":${JSON.stringify(promptText)}`);
    const roleDelta = `{"role":${JSON.stringify(role)},"content":""}`;
    let events = '';
    this.#numTokens.forEach((_, i) => {
      events += this.#introduction(i, roleDelta, prompt);
    });
    if (echo === '') return events;
    this.#numTokens.forEach((_, i) => {
      events += this.#introduction(i, `{"content":${JSON.stringify(echo)}}`, '');
    });
    return events;
  }

  /** A chunk before the first token. */
  #introduction(index: number, delta: string, tail: string): string {
    const choice = `{"index":${index},"delta":${delta},"logprobs":null,"finish_reason":null}`;
    return `${this.#open}${choice}]${this.#continuousUsage(index)}${tail}}\n\n`;
  }

  #chunk(delta: CompletionOutput): string {
    const { index, text, finishReason } = delta;
    this.#numTokens[index]! += delta.tokenIds.length;
    if (finishReason === null && this.#isPlain) {
      return text === ''
        ? ''
        : `${this.#plainHeads[index]}${JSON.stringify(text)}},"logprobs":null,"finish_reason":null}]}\n\n`;
    }
    const { format } = this;
    const carriesTokens = delta.tokenIds.length > 0 && (format.returnTokenIds || format.logprobs !== null);
    if (finishReason === null && text === '' && !carriesTokens) return '';
    const content = text === '' ? '{}' : `{"content":${JSON.stringify(text)}}`;
    const tokenIds = format.returnTokenIds ? tokenIdsMember('token_ids', delta.tokenIds) : '';
    const logprobs = delta.tokenIds.length === 0 ? 'null' : choiceLogprobs(delta, format.logprobs);
    const choice = `{"index":${index},"delta":${content},"logprobs":${logprobs}${finishMembers(delta)}${tokenIds}}`;
    const fingerprint = finishReason !== null && !this.usage.atEnd ? fingerprintMember(format.head) : '';
    return `${this.#open}${choice}]${this.#continuousUsage(index)}${fingerprint}}\n\n`;
  }

  #continuousUsage(index: number): string {
    if (!this.usage.continuous) return '';
    const completionTokens = this.#numTokens[index]!;
    return usageMember({ promptTokens: this.#numPromptTokens, completionTokens, cachedTokens: null });
  }
}
