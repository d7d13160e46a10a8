import { ValidationError } from '../../errors/validation-error.ts';
import type { ChatCompletionRequest } from './chat-completion.ts';
import type { ToolDefinition } from './chat-messages.ts';
import { isObject } from './fields.ts';

/** Whether the model may call tools, must, or must call a certain one. */
export type ToolChoice = 'none' | 'auto' | 'required' | { name: string };

/**
 * vLLM's rules for `tools` and `tool_choice`.
 *
 * @param isAutoEnabled `--enable-auto-tool-choice`
 * @throws ValidationError
 */
export function resolveToolChoice(
  { tools, tool_choice: given }: ChatCompletionRequest,
  isAutoEnabled: boolean,
): ToolChoice {
  if (tools?.length === 0) {
    throw new ValidationError(
      '`tools` must not be an empty array. Either provide at least one tool or omit the field entirely. (parameter=tools)',
      'tools',
    );
  }
  const choice = given === undefined && tools != null ? 'auto' : given;
  if (choice == null || choice === 'none') return 'none';
  if (tools == null) {
    throw new ValidationError('When using `tool_choice`, `tools` must be set. (parameter=tool_choice)', 'tool_choice');
  }
  if (typeof choice === 'string') {
    if (choice === 'auto') {
      if (isAutoEnabled) return 'auto';
      throw new ValidationError(
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
      );
    }
    if (choice !== 'required') {
      throw new ValidationError(
        'Invalid value for `tool_choice`! Only named tools, "none", "auto" or "required" are supported. (parameter=tool_choice)',
        'tool_choice',
      );
    }
    return 'required';
  }
  return { name: namedTool(choice, tools) };
}

function namedTool(choice: Record<string, unknown>, tools: readonly ToolDefinition[]): string {
  const usage = 'Correct usage: `{"type": "function", "function": {"name": "my_function"}}`';
  const named = choice.function;
  if (choice.type !== undefined && choice.type !== 'function') {
    throw new ValidationError(
      `Invalid value for \`type\` in \`tool_choice\`! ${usage} (parameter=tool_choice.type)`,
      'tool_choice.type',
    );
  }
  if (!isObject(named)) {
    throw new ValidationError(
      `Invalid value for \`function\` in \`tool_choice\`! ${usage} (parameter=tool_choice.function)`,
      'tool_choice.function',
    );
  }
  if (typeof named.name !== 'string' || named.name === '') {
    throw new ValidationError(
      `Expected a \`name\` in \`function\` in \`tool_choice\`! ${usage} (parameter=tool_choice.function.name)`,
      'tool_choice.function.name',
    );
  }
  const { name } = named;
  if (tools.some((tool) => tool.function.name === name)) return name;
  throw new ValidationError(
    'The tool specified in `tool_choice` does not match any of the specified `tools` (parameter=tool_choice)',
    'tool_choice',
  );
}
