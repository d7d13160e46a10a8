import type { CompletionOutput, RequestOutput } from '../../engine/engine-client.ts';
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
}

/** @returns JSON of OpenAI's CreateChatCompletionResponse with vLLM's additions where they carry a value */
export function chatAnswerJson(output: RequestOutput, format: ChatFormat): string {
  const choices = output.outputs.map((choice) => choiceJson(choice, format));
  const usage = usageMember({
    promptTokens: output.promptTokenIds.length,
    completionTokens: output.outputs.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0),
    cachedTokens: format.reportCachedTokens ? output.numCachedTokens : null,
  });
  const open = openAnswer(format.head, 'chat.completion');
  return `${open}${choices.join(',')}]${fingerprintMember(format.head)}${usage}${promptMembers(output, format)}}`;
}

function choiceJson(choice: CompletionOutput, format: ChatFormat): string {
  const content = JSON.stringify(format.echo + choice.text);
  const message = `{"role":${JSON.stringify(format.role)},"content":${content},"refusal":null}`;
  const logprobs = choiceLogprobs(choice, format.logprobs);
  const tokenIds = format.returnTokenIds ? tokenIdsMember('token_ids', choice.tokenIds) : '';
  return `{"index":${choice.index},"message":${message},"logprobs":${logprobs}${finishMembers(choice)}${tokenIds}}`;
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
