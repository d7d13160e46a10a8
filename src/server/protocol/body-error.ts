import { pythonFloat, pythonQuote } from '../../errors/parameter-error.ts';
import { ApiError } from '../errors.ts';

/** One finding of schema validation, in the words of pydantic, which vLLM's clients know; or a sentence of its own. */
export type BodyIssue =
  | { type: string; loc: string; msg: string; input: unknown; ctx?: Readonly<Record<string, string | number>> }
  | { text: string };

const MAX_ISSUES = 10;
const MAX_INPUT_CHARS = 200;

/** 400 in vLLM's form: how many findings, then a line for each of the first ten. */
export function bodyError(issues: readonly BodyIssue[]): ApiError {
  const label = issues.length === 1 ? 'error' : 'errors';
  const lines = issues.slice(0, MAX_ISSUES).map((issue) => `  ${formatIssue(issue)}`);
  if (issues.length > MAX_ISSUES) lines.push(`  ...and ${issues.length - MAX_ISSUES} more ${label}`);
  const first = issues[0];
  const param = first !== undefined && 'loc' in first ? first.loc : null;
  return new ApiError(400, 'Bad Request', `${issues.length} validation ${label}:\n${lines.join('\n')}`, param);
}

function formatIssue(issue: BodyIssue): string {
  if ('text' in issue) return issue.text;
  const { ctx, input, ...members } = issue;
  const parts = Object.entries({ ...members, input: summarize(input) }).map(
    ([key, text]) => `'${key}': ${pythonQuote(text)}`,
  );
  if (ctx !== undefined) {
    const context = Object.entries(ctx).map(([key, value]) => `'${key}': ${formatContext(value)}`);
    parts.push(`'ctx': {${context.join(', ')}}`);
  }
  return `{${parts.join(', ')}}`;
}

function formatContext(value: string | number): string {
  return typeof value === 'number' ? String(value) : pythonQuote(value);
}

/** Containers are counted, not shown: an answer must not be larger than the mistake. */
function summarize(input: unknown): string {
  if (input === null || input === undefined) return 'None';
  if (Array.isArray(input)) return `<list of ${input.length} items>`;
  if (typeof input === 'object') return `<dict of ${Object.keys(input).length} items>`;
  if (typeof input === 'boolean') return input ? 'True' : 'False';
  if (typeof input === 'number') return Number.isInteger(input) ? String(input) : pythonFloat(input);
  const text = String(input);
  return text.length > MAX_INPUT_CHARS ? `${text.slice(0, MAX_INPUT_CHARS)}...[truncated]` : text;
}
