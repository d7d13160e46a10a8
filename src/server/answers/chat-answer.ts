import type { CompletionOutput, RequestOutput } from '../../engine/engine-client.ts';
import type { ParsedMessage } from '../../parsers/output-events.ts';
import type { OutputParsing } from '../generation/output-parsing.ts';
import {
  type AnswerHead,
  fingerprintMember,
  finishMembers,
  openAnswer,
  tokenIdsMember,
  usageMember,
} from './answer-head.ts';
import { chatLogprobsJson, type LogprobsFormat, promptLogprobsJson } from './logprobs-json.ts';

/** How a chat completion is written; the same for the answer in one piece and for the stream. */
export interface ChatFormat {
  head: AnswerHead;
  role: string;
  /** Number of choices. */
  n: number;
  /** What is put before the answer (`echo`). */
  echo: string;
  /** null: not asked for. */
  logprobs: LogprobsFormat | null;
  returnTokenIds: boolean;
  /** The rendered prompt, where asked for. */
  promptText: string | null;
  reportCachedTokens: boolean;
  /** Reasoning and tool calls in the answer; null: all is content. */
  parsing: OutputParsing | null;
}

/** @returns JSON of OpenAI's CreateChatCompletionResponse with vLLM's additions where they carry a value */
export function chatAnswerJson(output: RequestOutput, format: ChatFormat): string {
  const choices = output.outputs.map((choice) => `{${choiceMembers(choice, choice.index, format)}}`);
  const usage = usageMember({
    promptTokens: output.promptTokenIds.length,
    completionTokens: sum(output.outputs.map(({ tokenIds }) => tokenIds.length)),
    cachedTokens: format.reportCachedTokens ? output.numCachedTokens : null,
    reasoningTokens: countReasoningTokens(output, format.parsing),
  });
  const open = openAnswer(format.head, 'chat.completion');
  return `${open}${choices.join(',')}]${fingerprintMember(format.head)}${usage}${promptMembers(output, format)}}`;
}

/** One answer to several conversations: choices are indexed conversation * n + i, and have with them what is said of their prompt. */
export function chatBatchAnswerJson(outputs: readonly RequestOutput[], formats: readonly ChatFormat[]): string {
  const [{ head, reportCachedTokens, n }] = formats as [ChatFormat, ...ChatFormat[]];
  const choices = outputs.flatMap((output, i) => {
    const format = formats[i]!;
    return output.outputs.map(
      (choice) => `{${choiceMembers(choice, i * n + choice.index, format)}${promptMembers(output, format)}}`,
    );
  });
  const reasoningTokens = outputs.map((output, i) => countReasoningTokens(output, formats[i]!.parsing));
  const usage = usageMember({
    promptTokens: sum(outputs.map(({ promptTokenIds }) => promptTokenIds.length)),
    completionTokens: sum(outputs.flatMap((output) => output.outputs.map(({ tokenIds }) => tokenIds.length))),
    cachedTokens: reportCachedTokens ? sum(outputs.map(({ numCachedTokens }) => numCachedTokens)) : null,
    reasoningTokens: reasoningTokens.some((count) => count === null)
      ? null
      : sum(reasoningTokens.map((count) => count!)),
  });
  return `${openAnswer(head, 'chat.completion')}${choices.join(',')}]${fingerprintMember(head)}${usage}}`;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function choiceMembers(choice: CompletionOutput, index: number, format: ChatFormat): string {
  const parsed = format.parsing?.parse(choice.text) ?? null;
  const members = parsed === null ? contentMember(format.echo + choice.text) : parsedMembers(parsed, format);
  const message = `{"role":${JSON.stringify(format.role)}${members},"refusal":null}`;
  const logprobs = choiceLogprobs(choice, format.logprobs);
  const tokenIds = format.returnTokenIds ? tokenIdsMember('token_ids', choice.tokenIds) : '';
  const hasCalls = parsed !== null && parsed.toolCalls.length > 0;
  const finish = finishMembers(choice, hasCalls && format.parsing!.callsAreTheReason);
  return `"index":${index},"message":${message},"logprobs":${logprobs}${finish}${tokenIds}`;
}

function contentMember(content: string | null): string {
  return `,"content":${JSON.stringify(content)}`;
}

/** Content is null where there is none and something else instead. */
function parsedMembers({ reasoning, content, toolCalls }: ParsedMessage, { echo, parsing }: ChatFormat): string {
  const text = echo + content;
  const isAbsent = text === '' && parsing!.isContentAbsent(toolCalls.length > 0);
  const calls = toolCalls.map(
    (call) =>
      `{"id":${JSON.stringify(call.id)},"type":"function","function":{"name":${JSON.stringify(call.name)},"arguments":${JSON.stringify(call.arguments)}}}`,
  );
  const callsMember = calls.length === 0 ? '' : `,"tool_calls":[${calls.join(',')}]`;
  return `${contentMember(isAbsent ? null : text)}${callsMember}${reasoning === '' ? '' : `,${reasoningMembers(reasoning)}`}`;
}

/** The field of today, and the one that older clients know. */
export function reasoningMembers(text: string): string {
  const json = JSON.stringify(text);
  return `"reasoning":${json},"reasoning_content":${json}`;
}

function countReasoningTokens(output: RequestOutput, parsing: OutputParsing | null): number | null {
  let total = 0;
  for (const { tokenIds } of output.outputs) {
    const counter = parsing?.tokenCounter() ?? null;
    if (counter === null) return null;
    counter.push(tokenIds);
    total += counter.count;
  }
  return total;
}

/** JSON of a choice's log probabilities, null where they were not asked for. */
export function choiceLogprobs({ tokenIds, logprobs }: CompletionOutput, format: LogprobsFormat | null): string {
  return format === null ? 'null' : chatLogprobsJson(tokenIds, logprobs ?? [], format);
}

function promptMembers(
  { promptLogprobs, promptTokenIds }: RequestOutput,
  { returnTokenIds, promptText }: ChatFormat,
): string {
  const logprobs = promptLogprobs === null ? '' : `,"prompt_logprobs":${promptLogprobsJson(promptLogprobs)}`;
  const ids = returnTokenIds ? tokenIdsMember('prompt_token_ids', promptTokenIds) : '';
  return `${logprobs}${ids}${promptText === null ? '' : `,"prompt_text":${JSON.stringify(promptText)}`}`;
}
