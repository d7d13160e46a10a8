import type { FrontendConfig } from '../config/bao-config.ts';
import type { ReasoningFormat } from './reasoning/reasoning-parser.ts';
import { findReasoningFormat } from './reasoning/registry.ts';
import { findToolFormat } from './tools/registry.ts';
import type { ToolFormat } from './tools/tool-parser.ts';

/** The formats in which the served model writes calls and reasoning; null: not to be looked for. */
export interface OutputFormats {
  tools: ToolFormat | null;
  reasoning: ReasoningFormat | null;
}

/** Those that `--tool-call-parser` and `--reasoning-parser` name, once plugins are loaded. Throws ConfigError for a name that nobody has registered. */
export function resolveParsers({ toolCallParser, reasoningParser }: FrontendConfig): OutputFormats {
  return {
    tools: toolCallParser === null ? null : findToolFormat(toolCallParser),
    reasoning: reasoningParser === null ? null : findReasoningFormat(reasoningParser),
  };
}
