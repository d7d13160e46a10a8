import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { ReasoningTokenCounter } from '../../src/parsers/reasoning/count-reasoning-tokens.ts';
import { findReasoningFormat } from '../../src/parsers/reasoning/registry.ts';
import { findToolFormat } from '../../src/parsers/tools/registry.ts';
import { cuttings, type PlainMessage, parserOptions, streamed, whole } from './harness.ts';

interface Case extends Partial<PlainMessage> {
  promptText?: string;
  templateKwargs?: Record<string, unknown>;
  tools?: string;
}

function expectSame(format: string, text: string, { promptText, templateKwargs, tools, ...expected }: Case): void {
  const options = parserOptions({
    reasoning: findReasoningFormat(format),
    tools: tools === undefined ? null : findToolFormat(tools),
    ...(promptText === undefined ? {} : { promptText }),
    ...(templateKwargs === undefined ? {} : { templateKwargs }),
  });
  const message = { reasoning: '', content: '', calls: [], ...expected };
  expect(whole(text, options)).toEqual(message);
  for (const pieces of cuttings(text)) expect(streamed(pieces, options)).toEqual(message);
}

const CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>';
const HARMONY_CALL = '<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}';
const CALLS: [string, string][] = [['f', '{"a": 1}']];

const CASES: [format: string, what: string, text: string, expected: Case][] = [
  ['qwen3', 'both tags', '<think>\nhm\n</think>\n\nYes.', { reasoning: '\nhm\n', content: '\n\nYes.' }],
  [
    'qwen3',
    'the start tag is in the prompt',
    'hm</think>Yes.',
    { reasoning: 'hm', content: 'Yes.', promptText: 'x<think>\n' },
  ],
  ['qwen3', 'no end tag: all is reasoning', 'a < b </thin', { reasoning: 'a < b </thin' }],
  ['qwen3', 'nothing but a start tag', '\n<think>', {}],
  ['qwen3', 'switched off', 'Yes. </think>', { content: 'Yes. </think>', templateKwargs: { enable_thinking: false } }],
  ['qwen3', 'ended by the prompt', 'Yes.', { content: 'Yes.', promptText: '<think>\n\n</think>\n\n' }],
  ['qwen3', 'a call ends it', `hm\n${CALL}`, { reasoning: 'hm\n', calls: CALLS, tools: 'hermes' }],
  [
    'qwen3',
    'reasoning, text, call',
    `<think>hm</think>I see.${CALL}`,
    { reasoning: 'hm', content: 'I see.', calls: CALLS, tools: 'hermes' },
  ],
  [
    'qwen3',
    'white space between reasoning and call is no content',
    `<think>\nhm\n</think>\n\n${CALL}\n`,
    { reasoning: '\nhm\n', calls: CALLS, tools: 'hermes' },
  ],
  ['qwen3', 'tags twice', 'a<think>b</think>\n\n</think>Yes. </thi', { reasoning: 'ab', content: '\n\nYes. </thi' }],
  [
    'qwen3',
    'a tag within arguments',
    'hm</think><tool_call>{"name": "f", "arguments": {"a": "</think>"}}</tool_call>',
    { reasoning: 'hm', calls: [['f', '{"a": "</think>"}']], tools: 'hermes' },
  ],
  [
    'mistral',
    'a tag within arguments',
    'Well.[TOOL_CALLS]f{"a": "[THINK]"}',
    { content: 'Well.', calls: [['f', '{"a": "[THINK]"}']], tools: 'mistral' },
  ],
  ['deepseek_r1', 'no start tag', 'hm</think>Yes.</think>', { reasoning: 'hm', content: 'Yes.</think>' }],
  ['deepseek_r1', 'a call within the reasoning is none', CALL, { reasoning: CALL, tools: 'hermes' }],
  ['mistral', 'control tokens', '[THINK]hm[/THINK]Yes.', { reasoning: 'hm', content: 'Yes.' }],
  ['mistral', 'no reasoning', ' [TH] Yes.', { content: ' [TH] Yes.' }],
  [
    'mistral',
    'behind some text',
    'Well. [THINK]a[THINK]b[/THINK]Yes.[/THINK]',
    { reasoning: 'ab', content: 'Well. Yes.' },
  ],
  [
    'mistral',
    'a call ends it',
    '[THINK]hm[TOOL_CALLS]f[ARGS]{"a": 1}',
    { reasoning: 'hm', calls: CALLS, tools: 'mistral' },
  ],
  ['mistral', 'twice', '[THINK]a[/THINK]b[THINK]c[/THINK]d', { reasoning: 'ac', content: 'bd' }],
  ['mistral', 'an end without a start', 'a[/THINK]b', { content: 'ab' }],
  ['mistral', 'no end', '[THINK]hm [/THI', { reasoning: 'hm [/THI' }],
  ['mistral', 'a call', '[THINK]hm[/THINK][TOOL_CALLS]f{"a": 1}', { reasoning: 'hm', calls: CALLS, tools: 'mistral' }],
  [
    'granite',
    'two sentences',
    "Here's my thought process: hm. Here is my response: Yes.",
    { reasoning: ' hm. ', content: ' Yes.' },
  ],
  ['granite', 'no reasoning', 'Here is my answer: Yes.', { content: 'Here is my answer: Yes.' }],
  ['granite', 'cut short', 'Here is my thou', { content: 'Here is my thou' }],
  [
    'openai_gptoss',
    'channels',
    '<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>analysis<|message|>so<|end|><|start|>assistant<|channel|>final<|message|>Yes.',
    { reasoning: 'hm\nso', content: 'Yes.' },
  ],
  [
    'openai_gptoss',
    'a preamble and a call',
    `<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant${HARMONY_CALL}`,
    { reasoning: 'hm', content: 'I look.', calls: CALLS, tools: 'openai' },
  ],
  [
    'openai_gptoss',
    'a call within the thoughts, and a tool of the model itself',
    `<|channel|>commentary to=python<|message|>1 + 1<|call|><|start|>assistant<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>analysis to=f <|constrain|>json<|message|>{"a": 1}<|call|>`,
    { reasoning: 'hm', calls: CALLS, tools: 'openai' },
  ],
  ['gpt_oss', 'no channels', 'Yes.', { content: 'Yes.' }],
  ['<thought>...</thought>', 'a pair of tags', ' <thought>hm</thought> Yes.', { reasoning: 'hm', content: ' Yes.' }],
  ['<thought>...</thought>', 'without them', 'Yes. <thought>', { content: 'Yes. <thought>' }],
  [
    '<thought>...</thought>',
    'begun by the prompt',
    'hm</thought>Yes.',
    { reasoning: 'hm', content: 'Yes.', promptText: '<thought>' },
  ],
];

test.each(CASES)('%s: %s', (format, _, text, expected) => expectSame(format, text, expected));

test('reasoning that is not wanted is left out', () => {
  const options = parserOptions({ reasoning: findReasoningFormat('qwen3'), dropsReasoning: true });
  expect(whole('hm</think>Yes.', options)).toEqual({ reasoning: '', content: 'Yes.', calls: [] });
});

test('arguments that are not JSON leave the reasoning alone', () => {
  const options = parserOptions({ reasoning: findReasoningFormat('qwen3'), tools: findToolFormat('hermes') });
  const broken = '<tool_call>{"name": "f", "arguments": {"a": ';
  expect(whole(`hm</think>${broken}`, options)).toEqual({ reasoning: 'hm', content: broken, calls: [] });
});

test('an unknown parser is refused by name', () => {
  expect(() => findReasoningFormat('nope')).toThrow('--reasoning-parser: there is no parser nope');
  expect(() => findToolFormat('nope')).toThrow('--tool-call-parser: there is no parser nope');
});

describe('any text is parsed without an error, the same however it is cut', () => {
  const MARKS = [
    '<think>',
    '</think>',
    '<tool_call>',
    '[THINK]',
    '[/THINK]',
    'Here is my thought process:',
    "Here's my response:",
    '<|channel|>analysis',
    '<|start|>assistant',
    '<|message|>',
    '<|end|>',
    '<|channel|>commentary to=functions.f',
    ' to=',
    ' ',
    '\n',
    'x',
  ];
  const noise = fc.array(fc.oneof(fc.constantFrom(...MARKS), fc.string({ maxLength: 3 })), { maxLength: 12 });
  test.each(['qwen3', 'deepseek_r1', 'mistral', 'granite', 'openai_gptoss', '<think>...</think>'])('%s', (format) => {
    const options = parserOptions({ reasoning: findReasoningFormat(format), tools: findToolFormat('openai') });
    const property = fc.property(noise, (pieces) => {
      const once = streamed([pieces.join('')], options);
      expect(streamed(pieces, options)).toEqual(once);
      expect(streamed(pieces.join('').split(''), options)).toEqual(once);
    });
    fc.assert(property, { numRuns: 300, seed: 11 });
  });
});

describe('reasoning tokens', () => {
  const counted = (start: 'over' | 'inside' | 'marked', pieces: number[][]) => {
    const counter = new ReasoningTokenCounter({ start, starts: new Set([1]), ends: new Set([2]), eos: new Set([0]) });
    for (const piece of pieces) counter.push(piece);
    return counter.count;
  };
  test('the marks and the end of the answer do not count', () => {
    expect(
      counted('inside', [
        [1, 5, 6],
        [7, 2, 8],
        [9, 0],
      ]),
    ).toBe(3);
    expect(counted('inside', [[5, 6, 0]])).toBe(2);
  });
  test('only behind the start mark, or not at all', () => {
    expect(counted('marked', [[5, 1, 6, 7, 2, 8]])).toBe(2);
    expect(counted('marked', [[5, 6]])).toBe(0);
    expect(counted('over', [[1, 5, 2]])).toBe(0);
  });
});
