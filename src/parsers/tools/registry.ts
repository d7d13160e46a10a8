import { ConfigError } from '../../config/config-error.ts';
import { deepseekV3 } from './deepseek-v3.ts';
import { functiongemma } from './functiongemma.ts';
import { granite } from './granite.ts';
import { hermes } from './hermes.ts';
import { llama3Json } from './llama3-json.ts';
import { mistral } from './mistral.ts';
import { openai } from './openai.ts';
import { phi4MiniJson } from './phi4-mini-json.ts';
import { pythonic } from './pythonic.ts';
import { qwen3Coder } from './qwen3-coder.ts';
import type { ToolFormat } from './tool-parser.ts';

/** Values of `--tool-call-parser`; names are vLLM's. */
const FORMATS = new Map<string, ToolFormat>([
  ['deepseek_v3', deepseekV3],
  ['functiongemma', functiongemma],
  ['granite', granite],
  ['hermes', hermes],
  ['llama3_json', llama3Json],
  ['llama4_json', llama3Json],
  ['mistral', mistral],
  ['openai', openai],
  ['phi4_mini_json', phi4MiniJson],
  ['pythonic', pythonic],
  ['qwen3_coder', qwen3Coder],
  ['qwen3_json', hermes],
  ['qwen3_xml', qwen3Coder],
]);

/** For plugins: adds a value of `--tool-call-parser`, or replaces one. */
export function registerToolParser(name: string, format: ToolFormat): void {
  FORMATS.set(name, format);
}

/** Throws a ConfigError that names the ones there are. */
export function findToolFormat(name: string): ToolFormat {
  const format = FORMATS.get(name);
  if (format !== undefined) return format;
  throw new ConfigError(
    `--tool-call-parser: there is no parser ${name}; it must be one of ${[...FORMATS.keys()].join(', ')}.`,
  );
}
