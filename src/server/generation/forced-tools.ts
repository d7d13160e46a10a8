import type { ToolFormat } from '../../parsers/tools/tool-parser.ts';
import type { Constraint } from '../../structured-output/grammar-spec.ts';
import type { StructuredOutputsRequest } from '../../structured-output/structured-outputs.ts';
import type { ToolDefinition } from '../protocol/chat-messages.ts';
import type { ToolChoice } from '../protocol/tool-choice.ts';

const ANY_OBJECT: Readonly<Record<string, unknown>> = { type: 'object', properties: {} };

/**
 * What the answer must be for a call to be sure; null where the model may choose. Written in the model's own format where that has a frame for
 * arguments, else as plain JSON by vLLM's schemas.
 */
export function forcedCalls(
  choice: ToolChoice,
  tools: readonly ToolDefinition[],
  format: ToolFormat | null,
): StructuredOutputsRequest | null {
  if (choice === 'none' || choice === 'auto') return null;
  return {
    constraint: constraintFor(choice, tools, format),
    strict: false,
    options: { disableAnyWhitespace: false, disableAdditionalProperties: false, whitespacePattern: null },
  };
}

function constraintFor(
  choice: Exclude<ToolChoice, 'none' | 'auto'>,
  tools: readonly ToolDefinition[],
  format: ToolFormat | null,
): Constraint {
  if (format?.frame !== undefined) {
    const names = choice === 'required' ? tools.map((tool) => tool.function.name) : [choice.name];
    const { frame } = format;
    const pieces = names.map((name) => ({ ...frame(name), schema: argumentsSchema(name, tools) }));
    return { kind: 'framed', pieces, repeats: choice === 'required' };
  }
  const schema = choice === 'required' ? callsSchema(tools) : argumentsSchema(choice.name, tools);
  return { kind: 'json', schema };
}

function argumentsSchema(name: string, tools: readonly ToolDefinition[]): Readonly<Record<string, unknown>> {
  return tools.find((tool) => tool.function.name === name)?.function.parameters ?? ANY_OBJECT;
}

/** `[{"name": …, "parameters": {…}}, …]`, at least one. Definitions that parameters refer to move to the root, where references look for them. */
function callsSchema(tools: readonly ToolDefinition[]): Record<string, unknown> {
  const definitions: Record<string, unknown> = {};
  const calls = tools.map(({ function: { name, parameters } }) => {
    const { $defs, ...own } = parameters ?? ANY_OBJECT;
    Object.assign(definitions, $defs);
    return {
      properties: { name: { type: 'string', enum: [name] }, parameters: own },
      required: ['name', 'parameters'],
    };
  });
  return {
    type: 'array',
    minItems: 1,
    items: { type: 'object', anyOf: calls },
    ...(Object.keys(definitions).length > 0 ? { $defs: definitions } : {}),
  };
}
