import type { CompletionOutput, RequestOutput } from '../../engine/engine-client.ts';
import type { ApiError } from '../errors.ts';
import { append, joined } from '../flat-text.ts';
import { SSE_DONE } from '../generation/sse-writer.ts';
import { errorEvents, type StreamEncoder } from '../generation/stream-generation.ts';
import { StreamInterval } from '../generation/stream-interval.ts';
import { fingerprintMember, finishMembers, openAnswer, tokenIdsMember, usageMember } from './answer-head.ts';
import { type CompletionFormat, type ShownOutput, withEcho } from './completion-answer.ts';
import { JsonTexts } from './json-text.ts';
import { completionLogprobsJson } from './logprobs-json.ts';
import type { StreamUsage } from './usage.ts';

/** All of a plain chunk behind its head. */
const plainTexts = new JsonTexts(',"logprobs":null,"finish_reason":null}]}\n\n');

/** One choice of a stream. */
interface ChoiceState {
  /** All of a plain chunk in front of the text. */
  plainHead: string;
  /** null: each delta is told at once. */
  interval: StreamInterval | null;
  numTokens: number;
  /** Of the token that comes next; as in an answer in one piece it counts the tokens' own texts, some of which the answer's text may not have yet. */
  textOffset: number;
  hasStarted: boolean;
}

/** Turns the outputs of one request per prompt into the events of a completion stream. */
export class CompletionStreamEncoder implements StreamEncoder {
  readonly #open: string;
  readonly #choices: ChoiceState[];
  readonly #numPromptTokens: number[];
  readonly #numCachedTokens: number[];
  /** Of each prompt: they come once, with whichever output is the first, and each choice begins with them where it echoes. */
  readonly #promptLogprobs: RequestOutput['promptLogprobs'][];
  /** No chunk has more than text. */
  readonly #isPlain: boolean;

  constructor(
    private readonly format: CompletionFormat,
    private readonly usage: StreamUsage,
    numPrompts: number,
    interval: number,
  ) {
    this.#open = joined('data: ', openAnswer(format.head, 'text_completion'));
    this.#choices = Array.from({ length: numPrompts * format.n }, (_, i) => ({
      plainHead: joined(this.#open, `{"index":${i},"text":`),
      interval: interval === 1 ? null : new StreamInterval(interval),
      numTokens: 0,
      textOffset: 0,
      hasStarted: false,
    }));
    this.#numPromptTokens = Array.from({ length: numPrompts }, () => 0);
    this.#numCachedTokens = [...this.#numPromptTokens];
    this.#promptLogprobs = Array.from({ length: numPrompts }, () => null);
    this.#isPlain = format.logprobs === null && !format.returnTokenIds && format.echo === null && !usage.continuous;
  }

  /** Events for one output of the engine; '' where there is nothing to tell yet. */
  encode(promptIndex: number, output: RequestOutput): string {
    this.#numPromptTokens[promptIndex] = output.promptTokenIds.length;
    this.#numCachedTokens[promptIndex] = output.numCachedTokens;
    this.#promptLogprobs[promptIndex] ??= output.promptLogprobs;
    let events = '';
    for (const delta of output.outputs) {
      const index = promptIndex * this.format.n + delta.index;
      const { interval } = this.#choices[index]!;
      const due = interval === null ? delta : interval.push(delta);
      if (due !== null) events = append(events, this.#chunk(index, promptIndex, output, due));
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
    const usage = usageMember({
      promptTokens: sum(this.#numPromptTokens),
      completionTokens: sum(this.#choices.map(({ numTokens }) => numTokens)),
      cachedTokens: this.format.reportCachedTokens ? sum(this.#numCachedTokens) : null,
    });
    return `${this.#open}]${usage}${fingerprintMember(this.format.head)}}\n\n`;
  }

  #chunk(index: number, promptIndex: number, output: RequestOutput, delta: CompletionOutput): string {
    const state = this.#choices[index]!;
    state.numTokens += delta.tokenIds.length;
    if (this.#isPlain && delta.finishReason === null) {
      if (delta.text === '') return '';
      return state.plainHead + plainTexts.of(delta.text);
    }
    const { format } = this;
    const isFirst = !state.hasStarted;
    const shown = this.#shown(isFirst, promptIndex, output, delta);
    const carriesTokens = shown.tokenIds.length > 0 && (format.returnTokenIds || format.logprobs !== null);
    if (shown.text === '' && delta.finishReason === null && !carriesTokens) return '';
    state.hasStarted = true;
    const prompt = isFirst && format.returnTokenIds ? tokenIdsMember('prompt_token_ids', output.promptTokenIds) : '';
    const tokenIds = format.returnTokenIds ? tokenIdsMember('token_ids', delta.tokenIds) : '';
    const logprobs = this.#logprobs(shown, state);
    const choice = `{"index":${index},"text":${JSON.stringify(shown.text)},"logprobs":${logprobs}${finishMembers(delta)}${prompt}${tokenIds}}`;
    const fingerprint = delta.finishReason !== null && !this.usage.atEnd ? fingerprintMember(format.head) : '';
    return `${this.#open}${choice}]${this.#continuousUsage(state, promptIndex)}${fingerprint}}\n\n`;
  }

  #shown(isFirst: boolean, promptIndex: number, output: RequestOutput, delta: CompletionOutput): ShownOutput {
    const { format } = this;
    if (format.echo !== null && isFirst) {
      const promptLogprobs = this.#promptLogprobs[promptIndex]!;
      return withEcho({ ...output, promptLogprobs }, delta, format.echo[promptIndex]!, format);
    }
    if (format.promptOnly) return { text: '', tokenIds: [], logprobs: [] };
    return { text: delta.text, tokenIds: delta.tokenIds, logprobs: delta.logprobs ?? [] };
  }

  #logprobs(shown: ShownOutput, state: ChoiceState): string {
    const { logprobs } = this.format;
    if (logprobs === null || shown.tokenIds.length === 0) return 'null';
    const { json, nextOffset } = completionLogprobsJson(shown.tokenIds, shown.logprobs, logprobs, state.textOffset);
    state.textOffset = nextOffset;
    return json;
  }

  #continuousUsage({ numTokens }: ChoiceState, promptIndex: number): string {
    if (!this.usage.continuous) return '';
    return usageMember({
      promptTokens: this.#numPromptTokens[promptIndex]!,
      completionTokens: numTokens,
      cachedTokens: null,
    });
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
