import * as v from 'valibot';
import { notSupported } from '../errors.ts';
import type { ChatCompletionRequest } from './chat-completion.ts';
import type { ToolDefinition } from './chat-messages.ts';
import { anyObject, boolean, isObject, list, string } from './fields.ts';
import { wrongValue } from './wrong-value.ts';

export const responseTools = list(
  v.object(
    {
      type: string,
      name: v.nullish(string),
      description: v.nullish(string, null),
      parameters: v.nullish(anyObject, null),
      strict: v.nullish(boolean, null),
    },
    'model_attributes_type: Input should be a valid dictionary or object to extract fields from',
  ),
);
type GivenTool = v.InferOutput<typeof responseTools>[number];

/** A function as OpenAI describes it in answers. */
export interface FunctionTool {
  type: 'function';
  name: string;
  description: string | null;
  parameters: Record<string, unknown> | null;
  strict: boolean | null;
}

/** @throws ValidationError for tools that a provider runs itself */
export function functionTools(given: readonly GivenTool[]): FunctionTool[] {
  return given.map(({ type, name, description, parameters, strict }, i) => {
    if (type !== 'function') throw notSupported(`tools[${i}].type`, `this server has no ${type.slice(0, 40)}`);
    if (name == null) throw wrongValue(`tools[${i}].name`, 'the name of a function', name);
    return { type, name, description, parameters, strict };
  });
}

/** The tools that the model sees, and what it shall do with them. */
export interface ChatTools {
  tools: ToolDefinition[] | null;
  tool_choice: ChatCompletionRequest['tool_choice'];
}

/** @throws ValidationError for a choice that this server doesn't know */
export function chatTools(tools: readonly FunctionTool[], choice: unknown): ChatTools {
  if (isObject(choice)) return chosenTools(tools, choice);
  if (choice != null && choice !== 'none' && choice !== 'auto' && choice !== 'required') {
    throw wrongValue('tool_choice', 'none, auto, required or an object', choice);
  }
  // Of no tools the model chooses none, unless it must.
  if (tools.length === 0) return { tools: null, tool_choice: choice === 'required' ? choice : undefined };
  return { tools: definitions(tools), tool_choice: choice ?? undefined };
}

function chosenTools(tools: readonly FunctionTool[], choice: Record<string, unknown>): ChatTools {
  if (choice.type === 'function') {
    return {
      tools: tools.length === 0 ? null : definitions(tools),
      tool_choice: { type: 'function', function: { name: choice.name } },
    };
  }
  if (choice.type !== 'allowed_tools') throw notSupported('tool_choice', 'a choice is a function or allowed_tools');
  const { mode, tools: allowed } = choice;
  if (mode !== 'auto' && mode !== 'required') throw wrongValue('tool_choice.mode', 'auto or required', mode);
  if (!Array.isArray(allowed)) throw wrongValue('tool_choice.tools', 'a list of functions', allowed);
  const names = new Set(allowed.map((tool: unknown) => (isObject(tool) ? tool.name : undefined)));
  return chatTools(
    tools.filter(({ name }) => names.has(name)),
    mode,
  );
}

function definitions(tools: readonly FunctionTool[]): ToolDefinition[] {
  return tools.map(({ name, description, parameters }) => ({
    type: 'function',
    function: { name, description, parameters },
  }));
}
