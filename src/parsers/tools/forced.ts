import { JsonListParser } from './json-list-parser.ts';
import type { ToolFormat } from './tool-parser.ts';

/** What a grammar makes of any model's answer with tool_choice required: `[{"name": …, "parameters": {…}}, …]`. */
export const requiredCalls: ToolFormat = { create: (sink) => new JsonListParser(sink, ['parameters'], '') };

/** What a grammar makes of any model's answer where a function was named: its arguments and nothing else. */
export function namedCall(name: string): ToolFormat {
  return {
    create: (sink) => {
      let isStarted = false;
      return {
        push: (text) => {
          if (!isStarted) sink.startCall(name);
          isStarted = true;
          sink.arguments(text);
        },
        finish: () => {},
      };
    },
  };
}
