import Ajv, { type ValidateFunction } from 'ajv';
import description from '../reference/openai-answers.json';

/** Validates answers against OpenAI's own description, whose OpenAPI 3.0 `nullable` is said in JSON Schema's words first. */
const ajv = new Ajv({
  strict: false,
  allErrors: true,
  formats: { unixtime: true, date: true, uri: true, float: true },
});
ajv.addSchema({ $id: 'openai', ...(withoutNullable(description) as object) });

function withoutNullable(node: unknown): unknown {
  if (Array.isArray(node)) return node.map(withoutNullable);
  if (typeof node !== 'object' || node === null) return node;
  const { nullable, ...schema } = node as Record<string, unknown>;
  const plain = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, withoutNullable(value)]));
  return nullable === true ? { anyOf: [plain, { type: 'null' }] } : plain;
}

const validators = new Map<string, ValidateFunction>();

/** @returns what is wrong, '' if nothing */
export function schemaErrors(name: string, answer: unknown): string {
  let validate = validators.get(name);
  if (validate === undefined) {
    validate = ajv.compile({ $ref: `openai#/components/schemas/${name}` });
    validators.set(name, validate);
  }
  return validate(answer) ? '' : ajv.errorsText(validate.errors);
}

/**
 * OpenAI describes a completion and the events of its stream with one schema, in which `finish_reason` can't be null and every token has a
 * log probability. Its own server, like vLLM, sends null before the end of a stream and for the first token of an echoed prompt: these
 * two are the only departures, and are filled in before validation.
 */
export function completionSchemaErrors(answer: { choices: CompletionChoice[] }): string {
  const filled = structuredClone(answer);
  for (const choice of filled.choices) {
    choice.finish_reason ??= 'stop';
    const { logprobs } = choice;
    if (logprobs == null) continue;
    logprobs.token_logprobs = logprobs.token_logprobs.map((value, i) => (i === 0 ? (value ?? 0) : value));
    logprobs.top_logprobs = logprobs.top_logprobs.map((value, i) => (i === 0 ? (value ?? {}) : value));
  }
  return schemaErrors('CreateCompletionResponse', filled);
}

export interface CompletionChoice {
  index: number;
  text: string;
  finish_reason: string | null;
  stop_reason?: string | number;
  token_ids?: number[];
  prompt_token_ids?: number[];
  prompt_logprobs?: unknown[];
  logprobs: {
    tokens: string[];
    text_offset: number[];
    token_logprobs: (number | null)[];
    top_logprobs: (Record<string, number> | null)[];
  } | null;
}
