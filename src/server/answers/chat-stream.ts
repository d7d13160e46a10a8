import type { CompletionOutput, RequestOutput } from '../../engine/engine-client.ts';
import type { OutputEvent } from '../../parsers/output-events.ts';
import type { ReasoningTokenCounter } from '../../parsers/reasoning/count-reasoning-tokens.ts';
import type { ApiError } from '../errors.ts';
import { append, joined } from '../flat-text.ts';
import type { OutputStream } from '../generation/output-parsing.ts';
import { SSE_DONE } from '../generation/sse-writer.ts';
import { errorEvents, type StreamEncoder } from '../generation/stream-generation.ts';
import { StreamInterval } from '../generation/stream-interval.ts';
import { fingerprintMember, finishMembers, openAnswer, tokenIdsMember, usageMember } from './answer-head.ts';
import { type ChatFormat, choiceLogprobs, reasoningMembers } from './chat-answer.ts';
import { JsonTexts, jsonText } from './json-text.ts';
import type { StreamUsage } from './usage.ts';

/** All of a plain chunk behind its head. */
const plainTexts = new JsonTexts('},"logprobs":null,"finish_reason":null}]}\n\n');

/** One choice of a stream. */
interface ChoiceState {
  /** null: each delta is told at once. */
  interval: StreamInterval | null;
  numTokens: number;
  /** All of a plain chunk in front of the text. */
  plainHead: string;
  /** undefined: all is content. */
  output: OutputStream | undefined;
  /** undefined: nothing is counted. */
  counter: ReasoningTokenCounter | undefined;
}

/**
 * Turns the outputs of a request into the events of a chat completion stream: a chunk with the role for each choice, one for each delta, the
 * last of a choice with its finish_reason, and one with the usage where asked for. What is the same in all chunks is written once.
 */
export class ChatStreamEncoder implements StreamEncoder {
  readonly #open: string;
  readonly #choices: ChoiceState[];
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
    const { parsing } = format;
    this.#open = joined('data: ', openAnswer(format.head, 'chat.completion.chunk'));
    this.#isPlain = parsing === null && format.logprobs === null && !format.returnTokenIds && !usage.continuous;
    this.#choices = Array.from({ length: format.n }, (_, i) => ({
      interval: interval === 1 ? null : new StreamInterval(interval),
      numTokens: 0,
      plainHead: joined(this.#open, `{"index":${i},"delta":{"content":`),
      output: parsing?.stream(),
      counter: parsing?.tokenCounter() ?? undefined,
    }));
  }

  /** Events for one output of the engine; '' where there is nothing to tell yet. */
  encode(_requestIndex: number, output: RequestOutput): string {
    let events = this.#hasStarted ? '' : this.#start(output);
    for (const delta of output.outputs) {
      const { interval } = this.#choices[delta.index]!;
      const due = interval === null ? delta : interval.push(delta);
      if (due !== null) events = append(events, this.#chunk(due));
    }
    return events;
  }

  end(): string {
    return this.#usageEvent() + SSE_DONE;
  }

  fail(error: ApiError): string {
    return errorEvents(error);
  }

  #usageEvent(): string {
    if (!this.usage.atEnd) return '';
    const counters = this.#choices.map(({ counter }) => counter).filter((counter) => counter !== undefined);
    const usage = usageMember({
      promptTokens: this.#numPromptTokens,
      completionTokens: this.#choices.reduce((sum, { numTokens }) => sum + numTokens, 0),
      cachedTokens: this.format.reportCachedTokens ? this.#numCachedTokens : null,
      reasoningTokens: counters.length === 0 ? null : counters.reduce((sum, { count }) => sum + count, 0),
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
    const roleDelta = `{"role":${jsonText(role)},"content":""}`;
    let events = '';
    this.#choices.forEach((_, i) => {
      events += this.#bareChunk(i, roleDelta, prompt);
    });
    if (echo === '') return events;
    this.#choices.forEach((_, i) => {
      events += this.#bareChunk(i, `{"content":${JSON.stringify(echo)}}`, '');
    });
    return events;
  }

  /** A chunk without tokens. */
  #bareChunk(index: number, delta: string, tail: string): string {
    const choice = `{"index":${index},"delta":${delta},"logprobs":null,"finish_reason":null}`;
    return `${this.#open}${choice}]${this.#continuousUsage(index)}${tail}}\n\n`;
  }

  #chunk(delta: CompletionOutput): string {
    const { index, text, finishReason } = delta;
    const choice = this.#choices[index]!;
    choice.numTokens += delta.tokenIds.length;
    if (finishReason === null && this.#isPlain) {
      return text === '' ? '' : choice.plainHead + plainTexts.of(text);
    }
    choice.counter?.push(delta.tokenIds);
    const deltas = this.#deltas(delta);
    const { format } = this;
    const carriesTokens = delta.tokenIds.length > 0 && (format.returnTokenIds || format.logprobs !== null);
    if (deltas.length === 0 && (finishReason !== null || carriesTokens)) deltas.push('{}');
    const last = deltas.pop();
    if (last === undefined) return '';
    // Log probabilities and token ids are those of the whole piece, and go with its last chunk.
    return deltas.map((each) => this.#bareChunk(index, each, '')).join('') + this.#lastChunk(delta, last);
  }

  /** `delta` objects of a piece of output. */
  #deltas(delta: CompletionOutput): string[] {
    const { index, text, finishReason } = delta;
    const { output } = this.#choices[index]!;
    if (output === undefined) return text === '' ? [] : [`{"content":${jsonText(text)}}`];
    return output.push(text, finishReason !== null).map(deltaJson);
  }

  #lastChunk(delta: CompletionOutput, json: string): string {
    const { format } = this;
    const { index, finishReason } = delta;
    const tokenIds = format.returnTokenIds ? tokenIdsMember('token_ids', delta.tokenIds) : '';
    const logprobs = delta.tokenIds.length === 0 ? 'null' : choiceLogprobs(delta, format.logprobs);
    const finish = finishMembers(delta, this.#choices[index]!.output?.endsWithCalls());
    const choice = `{"index":${index},"delta":${json},"logprobs":${logprobs}${finish}${tokenIds}}`;
    const fingerprint = finishReason !== null && !this.usage.atEnd ? fingerprintMember(format.head) : '';
    return `${this.#open}${choice}]${this.#continuousUsage(index)}${fingerprint}}\n\n`;
  }

  #continuousUsage(index: number): string {
    if (!this.usage.continuous) return '';
    const completionTokens = this.#choices[index]!.numTokens;
    return usageMember({ promptTokens: this.#numPromptTokens, completionTokens, cachedTokens: null });
  }
}

/** OpenAI's delta for an event: a call's name first, its arguments behind. */
function deltaJson(event: OutputEvent): string {
  switch (event.type) {
    case 'reasoning':
      return `{${reasoningMembers(event.text)}}`;
    case 'content':
      return `{"content":${JSON.stringify(event.text)}}`;
    case 'tool-call':
      return callDelta(
        `"id":${JSON.stringify(event.id)},"type":"function","index":${event.index},"function":{"name":${JSON.stringify(event.name)}}`,
      );
    case 'arguments':
      return callDelta(`"index":${event.index},"function":{"arguments":${JSON.stringify(event.text)}}`);
  }
}

function callDelta(members: string): string {
  return `{"content":null,"tool_calls":[{${members}}]}`;
}
