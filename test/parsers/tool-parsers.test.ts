import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { namedCall, requiredCalls } from '../../src/parsers/tools/forced.ts';
import { findToolFormat } from '../../src/parsers/tools/registry.ts';
import type { FunctionDefinition } from '../../src/parsers/tools/tool-parser.ts';
import { cuttings, type PlainMessage, parserOptions, streamEvents, streamed, whole } from './harness.ts';
import { definitionsOf, sampleCall, WRITERS } from './model-formats.ts';

const FUNCTIONS: FunctionDefinition[] = [
  {
    name: 'get_weather',
    parameters: {
      type: 'object',
      properties: {
        city: { type: 'string' },
        days: { type: 'integer' },
        detailed: { type: 'boolean' },
        where: { type: 'object' },
      },
    },
  },
];

const optionsFor = (format: string, functions = FUNCTIONS) =>
  parserOptions({ tools: findToolFormat(format), functions });

function expectSame(format: string, text: string, expected: Partial<PlainMessage>): void {
  const message = { reasoning: '', content: '', calls: [], ...expected };
  const options = optionsFor(format);
  expect(whole(text, options)).toEqual(message);
  for (const pieces of cuttings(text)) expect(streamed(pieces, options)).toEqual(message);
}

const PARIS: [string, string] = ['get_weather', '{"city": "Paris"}'];

/** Answers as models write them. */
const WELL_FORMED: [format: string, what: string, text: string, expected: Partial<PlainMessage>][] = [
  [
    'hermes',
    'a call',
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
    { calls: [PARIS] },
  ],
  [
    'hermes',
    'text first, then two calls',
    'I look it up.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n<tool_call>\n{"arguments": {}, "name": "now"}\n</tool_call>\n',
    { content: 'I look it up.\n', calls: [PARIS, ['now', '{}']] },
  ],
  [
    'hermes',
    'other members, brackets and quotes in strings',
    '<tool_call>{"id": [1, {"a": "}"}], "name": "f\\u00e9", "arguments": {"s": "\\"}</tool_call>\\\\"}, "x": null}</tool_call>',
    { calls: [['fé', '{"s": "\\"}</tool_call>\\\\"}']] },
  ],
  ['hermes', 'no end tag', '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}', { calls: [PARIS] }],
  [
    'hermes',
    'text behind a call',
    '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>\n\nDone.',
    { calls: [PARIS], content: '\n\nDone.' },
  ],
  [
    'qwen3_coder',
    'values by their schema',
    '<tool_call>\n<function=get_weather>\n<parameter=city>\nNew "York"\nCity\n</parameter>\n<parameter=days>\n3\n</parameter>\n<parameter=detailed>\nTrue\n</parameter>\n<parameter=where>\n{"lat": 1.5, "tags": ["a"]}\n</parameter>\n</function>\n</tool_call>',
    {
      calls: [
        [
          'get_weather',
          '{"city": "New \\"York\\"\\nCity", "days": 3, "detailed": true, "where": {"lat": 1.5, "tags": ["a"]}}',
        ],
      ],
    },
  ],
  [
    'qwen3_coder',
    'without the outer tag, a number for a text, an empty value, no parameters',
    'Now.\n<function=get_weather>\n<parameter=city>\n75001\n</parameter>\n<parameter=other>\n\n</parameter>\n</function>\n<tool_call>\n<function=now>\n</function>\n</tool_call>',
    {
      content: 'Now.\n',
      calls: [
        ['get_weather', '{"city": "75001", "other": ""}'],
        ['now', '{}'],
      ],
    },
  ],
  [
    'qwen3_coder',
    'no end of the function, white space in front',
    '\n\n<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</tool_call>\n<tool_call>\n<function=now>\n</tool_call>',
    { calls: [PARIS, ['now', '{}']] },
  ],
  [
    'qwen3_coder',
    'the end behind a parameter',
    '<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</func',
    { calls: [PARIS] },
  ],
  [
    'llama3_json',
    'one and several',
    '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}; {"type": "function", "name": "now", "parameters": {}}',
    { calls: [PARIS, ['now', '{}']] },
  ],
  [
    'llama3_json',
    'text around calls',
    'I look it up: {"name": "get_weather", "parameters": {"city": "Paris"}} and <|python_tag|> {"name": "now", "parameters": {"a": {"b": {}}}};\nDone; bye.',
    { content: 'I look it up:  and ;\nDone; bye.', calls: [PARIS, ['now', '{"a": {"b": {}}}']] },
  ],
  [
    'llama3_json',
    'a list',
    '\n[{"name": "get_weather", "parameters": {"city": "Paris"}}, {"name": "now", "parameters": {}}]\n',
    { calls: [PARIS, ['now', '{}']] },
  ],
  ['llama3_json', 'arguments', '{"name": "get_weather", "arguments": {"city": "Paris"}}', { calls: [PARIS] }],
  [
    'mistral',
    'the older array',
    '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "now", "arguments": {}}]',
    { calls: [PARIS, ['now', '{}']] },
  ],
  [
    'mistral',
    'names in front of arguments',
    'Sure.[TOOL_CALLS]get_weather{"city": "Paris"}[TOOL_CALLS]now[CALL_ID]abcdefghi[ARGS]{}',
    { content: 'Sure.', calls: [PARIS, ['now', '{}']] },
  ],
  [
    'mistral',
    'no arguments',
    '[TOOL_CALLS]now[ARGS] [TOOL_CALLS]get_weather[ARGS] {"city": "Paris"}[TOOL_CALLS]now[ARGS]',
    { calls: [['now', '{}'], PARIS, ['now', '{}']] },
  ],
  ['mistral', 'arguments that are a list', '[TOOL_CALLS]f[ARGS][1, 2]', { calls: [['f', '[1, 2]']] }],
  [
    'mistral',
    'no arguments in the older array',
    '\n[TOOL_CALLS] [{"name": "now"}, {"arguments": {"city": "Paris"}, "name": "get_weather"}]',
    { calls: [['now', '{}'], PARIS] },
  ],
  [
    'deepseek_v3',
    'two calls',
    'Let me see.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Paris"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    { content: 'Let me see.', calls: [PARIS, ['now', '{}']] },
  ],
  [
    'pythonic',
    'all kinds of literals',
    `[get_weather(city="L'Aquila\\n\\x41\\u00e9\\101", days=-2, detailed=True), f.g(a=[1, 2.5, (3,), {'k': None}], s='''x'y"z''', e='', u=.5), now()]`,
    {
      calls: [
        ['get_weather', `{"city": "L'Aquila\\nAéA", "days": -2, "detailed": true}`],
        ['f.g', `{"a": [1, 2.5, [3], {"k": null}], "s": "x'y\\"z", "e": "", "u": 0.5}`],
        ['now', '{}'],
      ],
    },
  ],
  [
    'pythonic',
    'strings that follow each other are one, raw ones keep their backslashes',
    `[f(a='x' "y"\n  '''z''', b=r'\\d\\'"', c=[u'1', '' '2'], d={'k' 'l': 'v'  })]`,
    { calls: [['f', `{"a": "xyz", "b": "\\\\d\\\\'\\"", "c": ["1", "2"], "d": {"kl": "v"}}`]] },
  ],
  [
    'openai',
    'thoughts are left out; a preamble and a call',
    '<|channel|>analysis<|message|>Which city?<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}',
    { content: 'I look.', calls: [PARIS] },
  ],
  [
    'openai',
    'the recipient first, then an answer',
    ' to=functions.get_weather<|channel|>commentary<|message|>{"city": "Paris"}<|call|><|start|>assistant<|channel|>final<|message|>Done.<|return|>',
    { content: 'Done.', calls: [PARIS] },
  ],
  [
    'openai',
    'two messages that are content',
    '<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|><|start|>assistant<|channel|>final<|message|>Done.<|return|>',
    { content: 'I look.\nDone.', calls: [PARIS] },
  ],
  [
    'openai',
    'a function without its prefix, and a tool of the model itself',
    '<|channel|>commentary to=browser.search<|message|>{"query": "x"}<|call|><|start|>assistant<|channel|>analysis to=get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>',
    { calls: [PARIS] },
  ],
  ['granite', 'a list', '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]', { calls: [PARIS] }],
  [
    'granite',
    'the other mark, and none',
    '<tool_call> [{"arguments": {"city": "Paris"}, "name": "get_weather"}, {"name": "now", "arguments": {}}]',
    { calls: [PARIS, ['now', '{}']] },
  ],
  [
    'granite',
    'text around, no arguments',
    'I see.\n<|tool_call|>\n[{"name": "now"}, {"name": "get_weather", "arguments": {"city": "Paris"}}]\nDone.',
    { content: 'I see.\n\nDone.', calls: [['now', '{}'], PARIS] },
  ],
  [
    'granite',
    'two lists',
    '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]\nand <|tool_call|> [{"name": "now"}]',
    { content: '\nand ', calls: [PARIS, ['now', '{}']] },
  ],
  ['granite', 'no mark', '[{"name": "get_weather", "arguments": {"city": "Paris"}}]', { calls: [PARIS] }],
  [
    'phi4_mini_json',
    'a list',
    'functools[{"name": "get_weather", "arguments": {"city": "Paris"}}]',
    { calls: [PARIS] },
  ],
  [
    'functiongemma',
    'strings, numbers, nested values',
    '<start_function_call>call:get_weather{city:<escape>São {Paulo}<escape>,days:3,detailed:true,where:{lat:-1.5,tags:[<escape>a<escape>,null]}}<end_function_call><start_function_call>call:now{}<end_function_call><start_function_response>',
    {
      content: '<start_function_response>',
      calls: [
        [
          'get_weather',
          '{"city": "São {Paulo}", "days": 3, "detailed": true, "where": {"lat": -1.5, "tags": ["a", null]}}',
        ],
        ['now', '{}'],
      ],
    },
  ],
];

/** Answers that look like calls and are none. */
const CONTENT: Record<string, string[]> = {
  hermes: [
    '<tool_call>',
    '<tool_call>not JSON</tool_call>',
    '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
    '<tool_call>{"name": "f"}</tool_call>',
    '{"name": "f", "arguments": {}}',
    '<tool_call>{"name": "f"',
    '1 < 2 <tool',
    '<tool_call>{"arguments": {"a": 1}}</tool_call>',
  ],
  qwen3_coder: [
    '<tool_call>hello</tool_call>',
    '<tool_call>\n<function=>\n</function>',
    '<tool_call>\n<function=f',
    'a <function',
  ],
  llama3_json: [
    'Hello {"name": "f"}',
    '{"name": "f"}',
    'Written {"as": "JSON"}: {"name": "f", "parameters": {}}',
    '{"a": [1, 2]} and more',
    '[1, 2]; ',
    '[ ',
    '<|python_tag|>print(1)',
    '  <|python_',
    '{',
  ],
  mistral: [
    '[TOOL_CALLS]',
    '[TOOL_CALLS] [1]',
    '[TOOL_CALLS]get_weather',
    '[TOOL_CALLS]{"a": 1}',
    '[TOOL_CALLS] [{"arguments": {}}]',
    '[TOOL',
  ],
  deepseek_v3: [
    '<｜tool▁calls▁begin｜>',
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f',
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>x<｜tool▁call▁end｜>',
    '<｜tool',
  ],
  pythonic: ['[1, 2, 3]', '[a link](http://x)', '[not_a_call]', 'f(x=1)', '[f', '[', '[some words (x)]', ''],
  openai: ['plain text', ' to', 'a <| b'],
  granite: [
    '<|tool_call|>',
    '<|tool_call|>{"name": "f"}',
    '[1, 2]',
    'Hello',
    '<|tool_call|> [',
    '[{"name": "f"',
    'See <tool_call>: none',
  ],
  phi4_mini_json: ['functools', 'functools[]x', 'functools[1]', 'functools[{"name": "f"}]', 'funct'],
  functiongemma: [
    '<start_function_call>',
    '<start_function_call>call:{a:1}<end_function_call>',
    '<start_function_call>f{}',
    '<start_function_call>call:f<end_function_call>',
  ],
};

test.each(WELL_FORMED)('%s: %s', (format, _, text, expected) => expectSame(format, text, expected));

describe('what is no call is content', () => {
  test.each(Object.entries(CONTENT))('%s', (format, texts) => {
    for (const content of texts) expectSame(format, content, { content });
  });
});

describe('arguments that turn out not to be JSON', () => {
  const CUT: [format: string, text: string, args: string][] = [
    ['hermes', '<tool_call>{"name": "f", "arguments": {"a": "b', '{"a": "b'],
    ['qwen3_coder', '<tool_call>\n<function=f>\n<parameter=a>\nb', '{"a": "b'],
    ['pythonic', "[f(a='b", '{"a": "b'],
    ['pythonic', '[f(a=1, 2)]', '{"a": 1, "2": '],
    ['functiongemma', '<start_function_call>call:f{a:<escape>b', '{"a": "b'],
    ['mistral', '[TOOL_CALLS]f{"a": "b', '{"a": "b'],
    [
      'deepseek_v3',
      '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": "b',
      '{"a": "b',
    ],
  ];
  test.each(CUT)('%s: %s', (format, text, args) => {
    const options = optionsFor(format);
    expect(whole(text, options)).toEqual({ reasoning: '', content: text, calls: [] });
    for (const pieces of cuttings(text)) expect(streamed(pieces, options).calls).toEqual([['f', args]]);
  });
});

test('arguments are told as they are written', () => {
  const pieces = [
    '<tool_call>',
    '\n{"name": "get_weather"',
    ', "arguments": {"',
    'city',
    '": "',
    'Paris',
    '"}',
    '}\n</tool_call>',
  ];
  const events = streamEvents(pieces, optionsFor('hermes'));
  expect(events.map((event) => (event.type === 'tool-call' ? event.name : event.text))).toEqual([
    'get_weather',
    '{"',
    'city',
    '": "',
    'Paris',
    '"}',
  ]);
});

test('text values of qwen3_coder are told as they are written', () => {
  const pieces = ['<tool_call>\n<function=get_weather>\n<parameter=city>\nPa', 'ris', '\n', '</parameter>'];
  const events = streamEvents(pieces, optionsFor('qwen3_coder'));
  expect(events.slice(1).map((event) => 'text' in event && event.text)).toEqual(['{"city": "Pa', 'ris', '"', '}']);
});

test('only the first call without parallel calls', () => {
  const text = WRITERS.hermes!([
    { name: 'a', args: {} },
    { name: 'b', args: { x: 1 } },
    { name: 'c', args: {} },
  ]);
  const options = { ...optionsFor('hermes'), parallelToolCalls: false };
  expect(streamed(text, options).calls).toEqual([['a', '{}']]);
});

test('ids: of the server, or as the format has them', () => {
  const id = (format: string, text: string) => {
    const [event] = streamEvents([text], { ...optionsFor(format), newToolCallId: () => 'chatcmpl-tool-1' });
    return event?.type === 'tool-call' ? event.id : null;
  };
  expect(id('hermes', WRITERS.hermes!([{ name: 'f', args: {} }]))).toBe('chatcmpl-tool-1');
  expect(id('mistral', '[TOOL_CALLS]f{}')).toMatch(/^[A-Za-z0-9]{9}$/);
  expect(id('mistral', '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{}')).toBe('abcdefghi');
});

describe('forced calls', () => {
  test('required: an array of calls', () => {
    const options = parserOptions({ tools: requiredCalls });
    const output = '[ {"name": "f", "parameters": {"a": [1]}}, {"name": "g", "parameters": {}}]';
    const message = {
      reasoning: '',
      content: '',
      calls: [
        ['f', '{"a": [1]}'],
        ['g', '{}'],
      ],
    };
    for (const pieces of cuttings(output)) expect<unknown>(streamed(pieces, options)).toEqual(message);
  });

  test('a named function: its arguments', () => {
    const options = parserOptions({ tools: namedCall('f') });
    for (const pieces of cuttings('{"a": 1}')) expect(streamed(pieces, options).calls).toEqual([['f', '{"a": 1}']]);
  });

  test("what a format's frame makes is a call of the format", () => {
    const { begin, end } = findToolFormat('hermes').frame!('say "x"');
    expectSame('hermes', `${begin}{"a": 1}${end}`, { calls: [['say "x"', '{"a": 1}']] });
  });
});

describe('any calls come out as they went in, however the text is cut', () => {
  // Not those of the registry: another test's plugin may have added to it.
  test.each(Object.keys(WRITERS))('%s', (format) => {
    const property = fc.property(
      fc.uniqueArray(sampleCall, { minLength: 1, maxLength: 3, selector: ({ name }) => name }),
      fc.array(fc.nat(), { maxLength: 8 }),
      (calls, cuts) => {
        const output = WRITERS[format]!(calls);
        const options = optionsFor(format, definitionsOf(calls));
        const points = [0, ...cuts.map((cut) => cut % output.length).sort((a, b) => a - b), output.length];
        const pieces = points.slice(1).map((end, i) => output.slice(points[i], end));
        const message = whole(output, options);
        expect(message.calls.map(([name, args]) => ({ name, args: JSON.parse(args) }))).toEqual(calls);
        expect(message.content).toBe('');
        expect(streamed(pieces, options)).toEqual(message);
        expect(streamed(output.split(''), options)).toEqual(message);
      },
    );
    fc.assert(property, { numRuns: 150, seed: 20 });
  });
});

describe('any text is parsed without an error, the same however it is cut', () => {
  const MARKS = [
    '<tool_call>',
    '</tool_call>',
    '{"name": "f", ',
    '"arguments": {',
    '}',
    '{',
    '[',
    ']',
    '"',
    '<function=f>',
    '<parameter=a>',
    '</parameter>',
    '</function>',
    '[TOOL_CALLS]',
    '[ARGS]',
    'functools[',
    '<|channel|>',
    'commentary to=functions.f',
    '<|message|>',
    '<|end|>',
    '<start_function_call>call:f{',
    '<escape>',
    'f(',
    'a=',
    "'",
    ')',
    ',',
    '<｜tool▁calls▁begin｜>',
    '<｜tool▁call▁begin｜>',
    '<｜tool▁sep｜>f',
    '```json',
    '<｜tool▁call▁end｜>',
    ' ',
    '\n',
    '\\',
    'x',
    ';',
  ];
  const noise = fc.array(fc.oneof(fc.constantFrom(...MARKS), fc.string({ maxLength: 3 })), { maxLength: 14 });
  // Not those of the registry: another test's plugin may have added to it.
  test.each(Object.keys(WRITERS))('%s', (format) => {
    const options = optionsFor(format);
    const property = fc.property(noise, (pieces) => {
      const output = pieces.join('');
      const once = streamed([output], options);
      expect(streamed(pieces, options)).toEqual(once);
      expect(streamed(output.split(''), options)).toEqual(once);
      whole(output, options);
    });
    fc.assert(property, { numRuns: 300, seed: 4 });
  });
});
