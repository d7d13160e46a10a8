import type { GenerationFields } from '../protocol/generation-fields.ts';

export interface Usage {
  promptTokens: number;
  completionTokens: number;
  /** Prompt tokens from the prefix cache; null: not reported. */
  cachedTokens: number | null;
  /** Completion tokens of the reasoning; null: not counted. */
  reasoningTokens?: number | null;
}

/** JSON of OpenAI's usage object. */
export function usageJson({ promptTokens, completionTokens, cachedTokens, reasoningTokens = null }: Usage): string {
  const details = cachedTokens === null ? '' : `,"prompt_tokens_details":{"cached_tokens":${cachedTokens}}`;
  const reasoning =
    reasoningTokens === null ? '' : `,"completion_tokens_details":{"reasoning_tokens":${reasoningTokens}}`;
  const total = promptTokens + completionTokens;
  return `{"prompt_tokens":${promptTokens},"total_tokens":${total},"completion_tokens":${completionTokens}${details}${reasoning}}`;
}

/** Which events of a stream carry usage: an event of its own at the end, and every one. */
export interface StreamUsage {
  atEnd: boolean;
  continuous: boolean;
}

export function streamUsage(options: GenerationFields['stream_options'], force: boolean): StreamUsage {
  if (force) return { atEnd: true, continuous: true };
  const atEnd = options?.include_usage ?? false;
  return { atEnd, continuous: atEnd && (options?.continuous_usage_stats ?? false) };
}
