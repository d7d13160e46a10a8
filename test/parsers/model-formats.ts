import fc from 'fast-check';
import type { FunctionDefinition } from '../../src/parsers/tools/tool-parser.ts';

/** How models of each family write calls, for tests that need any number of them. */

export interface SampleCall {
  name: string;
  args: Record<string, unknown>;
}

const json = (call: SampleCall, key: string) =>
  `{"name": ${JSON.stringify(call.name)}, "${key}": ${JSON.stringify(call.args)}}`;

function python(value: unknown): string {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`;
  if (typeof value === 'object') {
    return `{${Object.entries(value)
      .map(([key, item]) => `${python(key)}: ${python(item)}`)
      .join(', ')}}`;
  }
  if (typeof value === 'string') {
    return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'").replaceAll('\n', '\\n')}'`;
  }
  return String(value);
}

function gemma(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(gemma).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    return `{${Object.entries(value)
      .map(([key, item]) => `<escape>${key}<escape>:${gemma(item)}`)
      .join(',')}}`;
  }
  return typeof value === 'string' ? `<escape>${value}<escape>` : String(value);
}

const parameter = ([key, value]: [string, unknown]) =>
  `<parameter=${key}>\n${typeof value === 'string' ? value : JSON.stringify(value)}\n</parameter>\n`;

export const WRITERS: Record<string, (calls: SampleCall[]) => string> = {
  hermes: (calls) => calls.map((call) => `<tool_call>\n${json(call, 'arguments')}\n</tool_call>`).join('\n'),
  llama3_json: (calls) => calls.map((call) => json(call, 'parameters')).join('; '),
  granite: (calls) => `<|tool_call|>[${calls.map((call) => json(call, 'arguments')).join(', ')}]`,
  phi4_mini_json: (calls) => `functools[${calls.map((call) => json(call, 'arguments')).join(', ')}]`,
  mistral: (calls) => calls.map((call) => `[TOOL_CALLS]${call.name}${JSON.stringify(call.args)}`).join(''),
  deepseek_v3: (calls) =>
    `<｜tool▁calls▁begin｜>${calls
      .map(
        (call) =>
          `<｜tool▁call▁begin｜>function<｜tool▁sep｜>${call.name}\n\`\`\`json\n${JSON.stringify(call.args)}\n\`\`\`<｜tool▁call▁end｜>`,
      )
      .join('\n')}<｜tool▁calls▁end｜>`,
  openai: (calls) =>
    calls
      .map(
        (call) =>
          `<|channel|>commentary to=functions.${call.name} <|constrain|>json<|message|>${JSON.stringify(call.args)}<|call|>`,
      )
      .join('<|start|>assistant'),
  pythonic: (calls) =>
    `[${calls
      .map(
        ({ name, args }) =>
          `${name}(${Object.entries(args)
            .map(([key, value]) => `${key}=${python(value)}`)
            .join(', ')})`,
      )
      .join(', ')}]`,
  functiongemma: (calls) =>
    calls
      .map(
        ({ name, args }) =>
          `<start_function_call>call:${name}{${Object.entries(args)
            .map(([key, value]) => `${key}:${gemma(value)}`)
            .join(',')}}<end_function_call>`,
      )
      .join(''),
  qwen3_coder: (calls) =>
    calls
      .map(
        ({ name, args }) =>
          `<tool_call>\n<function=${name}>\n${Object.entries(args).map(parameter).join('')}</function>\n</tool_call>`,
      )
      .join('\n'),
};

const identifier = fc.stringMatching(/^[a-z_][a-z0-9_]{0,12}$/).filter((name) => name !== '__proto__');
/** No format can tell its own marks within a text from the marks. */
const text = fc.string({ unit: 'grapheme', maxLength: 20 }).filter((value) => !/<|^\s|\s$|\r/.test(value));
const key = fc.oneof(
  identifier,
  text.filter((value) => value !== '' && value !== '__proto__'),
);
const { value } = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    text,
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => number + 0),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(key, tie('value'), { maxKeys: 3, noNullPrototype: true }),
  ),
}));
export const sampleCall: fc.Arbitrary<SampleCall> = fc.record({
  name: identifier,
  args: fc.dictionary(identifier, value, { maxKeys: 4, noNullPrototype: true }),
});

/** A schema that tells text from the rest. */
export function definitionsOf(calls: SampleCall[]): FunctionDefinition[] {
  return calls.map(({ name, args }) => ({
    name,
    parameters: {
      type: 'object',
      properties: Object.fromEntries(
        Object.entries(args).map(([field, each]) => [field, { type: typeof each === 'string' ? 'string' : 'object' }]),
      ),
    },
  }));
}
