import type { CompletionOutput, PositionLogprobs, RequestOutput } from '../../engine/engine-client.ts';
import {
  type AnswerHead,
  fingerprintMember,
  finishMembers,
  openAnswer,
  tokenIdsMember,
  usageMember,
} from './answer-head.ts';
import { completionLogprobsJson, type LogprobsFormat, promptLogprobsJson } from './logprobs-json.ts';

/** How a completion is written; the same for the answer in one piece and for the stream. */
export interface CompletionFormat {
  head: AnswerHead;
  /** Choices per prompt. */
  n: number;
  /** Text of each prompt, put before its completions; null: no echo. */
  echo: string[] | null;
  /** The generated token is not shown: the request wanted none (`max_tokens: 0` with echo). */
  promptOnly: boolean;
  /** null: not asked for. */
  logprobs: LogprobsFormat | null;
  returnTokenIds: boolean;
  reportCachedTokens: boolean;
}

/** Text, tokens and log probabilities that a choice shows: the prompt's before its own where echoed. */
export interface ShownOutput {
  text: string;
  tokenIds: number[];
  logprobs: PositionLogprobs[];
}

export function withEcho(
  output: RequestOutput,
  choice: CompletionOutput,
  promptText: string,
  format: CompletionFormat,
): ShownOutput {
  const prompt = {
    // With token ids in the answer, vLLM leaves the text of the prompt out.
    text: format.returnTokenIds ? '' : promptText,
    tokenIds: [...output.promptTokenIds],
    logprobs: output.promptLogprobs ?? [],
  };
  if (format.promptOnly) return prompt;
  return {
    text: prompt.text + choice.text,
    tokenIds: prompt.tokenIds.concat(choice.tokenIds),
    logprobs: prompt.logprobs.concat(choice.logprobs ?? []),
  };
}

/** @returns JSON of OpenAI's CreateCompletionResponse with vLLM's additions where they carry a value; choices are indexed prompt * n + i */
export function completionAnswerJson(outputs: readonly RequestOutput[], format: CompletionFormat): string {
  const choices = outputs.flatMap((output, promptIndex) =>
    output.outputs.map((choice) => choiceJson(output, choice, promptIndex, format)),
  );
  const usage = usageMember({
    promptTokens: outputs.reduce((sum, { promptTokenIds }) => sum + promptTokenIds.length, 0),
    completionTokens: outputs
      .flatMap((output) => output.outputs)
      .reduce((sum, { tokenIds }) => sum + tokenIds.length, 0),
    cachedTokens: format.reportCachedTokens
      ? outputs.reduce((sum, { numCachedTokens }) => sum + numCachedTokens, 0)
      : null,
  });
  const open = openAnswer(format.head, 'text_completion');
  return `${open}${choices.join(',')}]${fingerprintMember(format.head)}${usage}}`;
}

function choiceJson(
  output: RequestOutput,
  choice: CompletionOutput,
  promptIndex: number,
  format: CompletionFormat,
): string {
  const shown =
    format.echo === null
      ? { text: choice.text, tokenIds: choice.tokenIds, logprobs: choice.logprobs ?? [] }
      : withEcho(output, choice, format.echo[promptIndex]!, format);
  const logprobs =
    format.logprobs === null ? 'null' : completionLogprobsJson(shown.tokenIds, shown.logprobs, format.logprobs, 0).json;
  const { promptLogprobs } = output;
  const prompt =
    (promptLogprobs === null ? '' : `,"prompt_logprobs":${promptLogprobsJson(promptLogprobs)}`) +
    (format.returnTokenIds ? tokenIdsMember('prompt_token_ids', output.promptTokenIds) : '');
  const tokenIds = format.returnTokenIds ? tokenIdsMember('token_ids', choice.tokenIds) : '';
  const index = promptIndex * format.n + choice.index;
  return `{"index":${index},"text":${JSON.stringify(shown.text)},"logprobs":${logprobs}${finishMembers(choice)}${tokenIds}${prompt}}`;
}
