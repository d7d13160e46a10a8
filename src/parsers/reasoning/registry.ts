import { ConfigError } from '../../config/config-error.ts';
import { deepseekR1 } from './deepseek-r1.ts';
import { gptOss } from './gpt-oss.ts';
import { granite } from './granite.ts';
import { mistral } from './mistral.ts';
import { qwen3 } from './qwen3.ts';
import type { ReasoningFormat } from './reasoning-parser.ts';
import { parseTagPair } from './tag-pair.ts';

/** Values of `--reasoning-parser`; names are vLLM's. */
const FORMATS = new Map<string, ReasoningFormat>([
  ['deepseek_r1', deepseekR1],
  ['granite', granite],
  ['mistral', mistral],
  ['openai_gptoss', gptOss],
  ['gpt_oss', gptOss],
  ['qwen3', qwen3],
]);

/** For plugins: adds a value of `--reasoning-parser`, or replaces one. */
export function registerReasoningParser(name: string, format: ReasoningFormat): void {
  FORMATS.set(name, format);
}

/** A registered parser, or that of a pair of tags (`<think>...</think>`). Throws a ConfigError that names the ones there are. */
export function findReasoningFormat(name: string): ReasoningFormat {
  const format = FORMATS.get(name) ?? parseTagPair(name);
  if (format !== null) return format;
  throw new ConfigError(
    `--reasoning-parser: there is no parser ${name}; it must be one of ${[...FORMATS.keys()].join(', ')}, or a pair of tags like <think>...</think>.`,
  );
}
