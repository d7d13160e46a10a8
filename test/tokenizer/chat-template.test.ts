import { describe, expect, test } from 'bun:test';
import { ValidationError } from '../../src/errors/validation-error.ts';
import { LoadError } from '../../src/loader/load-error.ts';
import { ChatTemplate, type ChatTemplateOptions } from '../../src/tokenizer/chat-template.ts';
import { detectContentFormat } from '../../src/tokenizer/content-format.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import { JinjaTemplate, strftime } from '../../src/tokenizer/sandboxed-jinja.ts';
import type { ChatMessage, ChatTemplateInput } from '../../src/tokenizer/tokenizer.ts';
import examples from '../reference/examples.json';
import { DEMO, withTokenizerFolder } from './tokenizer-folder.ts';

const tokenizer = await createTokenizer(DEMO, { mode: 'js' });
const demo = ChatTemplate.fromFolder(DEMO, { tokenizer });
const SPECIAL_TOKENS = new Map([
  ['bos_token', '<s>'],
  ['eos_token', '</s>'],
]);
const withTokens = { ...tokenizer, specialTokens: SPECIAL_TOKENS } as ChatTemplateOptions['tokenizer'];

const template = (source: string, options: Partial<ChatTemplateOptions> = {}) =>
  new ChatTemplate(new Map([['default', source]]), { tokenizer: withTokens, ...options });
const input = (messages: ChatMessage[], changes: Partial<ChatTemplateInput> = {}): ChatTemplateInput => ({
  messages,
  addGenerationPrompt: true,
  continueFinalMessage: false,
  ...changes,
});
const user = (content: ChatMessage['content']): ChatMessage => ({ role: 'user', content });
const assistant = (content: ChatMessage['content']): ChatMessage => ({ role: 'assistant', content });

/** What render throws. */
function refusal(action: () => unknown): ValidationError {
  try {
    action();
  } catch (error) {
    expect(error).toBeInstanceOf(ValidationError);
    return error as ValidationError;
  }
  throw new Error('nothing was refused');
}

const FAMILIES = {
  chatml: `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`,
  llama2: `{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system = false %}{% endif %}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant.') }}{% endif %}
    {%- if loop.index0 == 0 and system != false %}{% set content = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}
    {%- if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% else %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}
{%- endfor %}`,
  llama3: `{{- bos_token }}
{%- set date = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- if tools is not none %}{{- "tools: " }}{% for t in tools %}{{- t | tojson(indent=4) }}{% endfor %}{% endif %}
{%- for message in messages %}
    {%- if 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}{{- raise_exception("one tool call at a time") }}{% endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start|>assistant<|end|>{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}' }}
    {%- else %}
        {{- '<|start|>' + message['role'] + '<|end|>\\n' + message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant<|end|>\\n' }}{% endif %}`,
  vision: `{% for message in messages %}<{{ message.role }}>{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'image' %}<image>{% elif part.type == 'text' %}[{{ part.text }}]{% endif %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}`,
  thinking: `{%- set ns = namespace(last=messages|length - 1) %}
{%- for message in messages[::-1] %}{% set index = (messages|length - 1) - loop.index0 %}{% if message.role == 'user' and message.content is string %}{% set ns.last = index %}{% break %}{% endif %}{% endfor %}
{%- macro part(role, text) %}{{ '<' ~ role ~ '>' ~ text ~ '</>' }}{% endmacro %}
{%- for message in messages %}
  {%- set content = message.content %}
  {%- if message.role == 'assistant' %}
    {%- if message.reasoning_content is string %}{% set reasoning = message.reasoning_content %}{% elif '</think>' in content %}{% set reasoning = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% else %}{% set reasoning = '' %}{% endif %}
    {%- if loop.index0 > ns.last and reasoning %}{{ part('think', reasoning) }}{% endif %}
  {%- endif %}
  {{- part(message.role, content) }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% if enable_thinking is defined and enable_thinking is false %}{{ '<think></think>' }}{% endif %}{% endif %}`,
  documents: `{% for document in documents %}{{ document.title }}: {{ document.text }}\n{% endfor %}{% for m in messages %}{{ m.content }}{% endfor %}`,
};

describe('the demo model', () => {
  test.each([
    'tokenize_chat',
    'chat',
    'chat_system',
    'chat_turns',
    'chat_parts',
    'chat_tool',
    'chat_tool_required',
    'chat_tool_result',
  ] as const)('%s: as many tokens as vLLM counts', (name) => {
    const { request, body } = examples[name];
    const { messages, tools } = request.body as unknown as ChatTemplateInput;
    const ids = tokenizer.encode(demo.render(input(messages, { tools })), { addSpecialTokens: false });
    expect(ids.length).toBe('count' in body ? body.count : body.usage.prompt_tokens);
    if ('tokens' in body) expect([...ids]).toEqual(body.tokens);
  });

  test('an empty conversation', () => {
    const error = refusal(() => demo.render(input([])));
    expect(error.message).toBe(examples.err_empty_messages.body.error.message);
  });

  test('arguments of tool calls are written as Python writes them, whatever spaces they came with', () => {
    const call = { id: 'x', type: 'function', function: { name: 'f', arguments: '{"a":[1,2],  "b":"ü"}' } };
    const text = demo.render(input([user('x'), { role: 'assistant', content: null, tool_calls: [call] }]));
    expect(text).toContain('<tool_call>\n{"name": "f", "arguments": {"a": [1, 2], "b": "ü"}}\n</tool_call>');
  });
});

describe('families', () => {
  test('ChatML', () => {
    expect(template(FAMILIES.chatml).render(input([{ role: 'system', content: 'S' }, user('U')]))).toBe(
      '<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n',
    );
  });

  test('Llama 2: special tokens, slices, raise_exception', () => {
    const llama2 = template(FAMILIES.llama2);
    const messages = [{ role: 'system', content: 'S' }, user(' U '), assistant('A'), user('V')];
    expect(llama2.render(input(messages))).toBe(
      '<s>[INST] <<SYS>>\nS\n<</SYS>>\n\n U [/INST] A </s><s>[INST] V [/INST]',
    );
    expect(refusal(() => llama2.render(input([user('a'), user('b')]))).message).toBe(
      'Roles must alternate user/assistant.',
    );
  });

  test('Llama 3: tools, tojson with indent, strftime_now, tool calls', () => {
    const llama3 = template(FAMILIES.llama3);
    const call = { type: 'function', function: { name: 'f', arguments: '{"x": 1}' } };
    const tools = [{ name: 'f', list: [1] }];
    const text = llama3.render(input([user(' hi '), { role: 'assistant', tool_calls: [call] }], { tools }));
    expect(text).toBe(
      '<s>tools: {\n    "name": "f",\n    "list": [\n        1\n    ]\n}<|start|>user<|end|>\nhi<|eot|><|start|>assistant<|end|>{"name": "f", "parameters": {"x": 1}}<|start|>assistant<|end|>\n',
    );
    expect(llama3.render(input([user('x')], { addGenerationPrompt: false }))).toBe('<s><|start|>user<|end|>\nx<|eot|>');
  });

  test('Qwen 3: macros, namespaces, break, chat_template_kwargs', () => {
    const thinking = template(FAMILIES.thinking, { defaultKwargs: { enable_thinking: false } });
    const messages = [user('U'), assistant('<think>\nwhy\n</think>\n\nA'), user('V')];
    expect(thinking.render(input(messages))).toBe('<user>U</><assistant>A</><user>V</><assistant><think></think>');
    expect(thinking.render(input(messages, { chatTemplateKwargs: { enable_thinking: true } }))).toEndWith(
      '<assistant>',
    );
    const last = [user('U'), { role: 'assistant', content: 'A', reasoning_content: 'R' }];
    expect(thinking.render(input(last, { addGenerationPrompt: false }))).toBe('<user>U</><think>R</><assistant>A</>');
  });

  test('documents', () => {
    const documents = [{ title: 'T', text: 'X' }];
    expect(template(FAMILIES.documents).render(input([user('U')], { documents }))).toBe('T: X\nU');
  });

  test('chat_template_kwargs do not replace the conversation', () => {
    const kwargs = { messages: [user('evil')], add_generation_prompt: false, range: 1, namespace: 1 };
    const text = template(FAMILIES.chatml).render(input([user('U')], { chatTemplateKwargs: kwargs }));
    expect(text).toBe('<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n');
  });
});

describe('content', () => {
  const parts = [
    { type: 'text', text: 'a' },
    { type: 'input_text', text: 'b' },
    { type: 'refusal', refusal: 'c' },
  ];

  test.each([
    ['chatml', 'string'],
    ['llama2', 'string'],
    ['llama3', 'string'],
    ['thinking', 'string'],
    ['vision', 'openai'],
  ] as const)('%s is seen as %s', (name, format) => {
    expect(detectContentFormat(new JinjaTemplate(FAMILIES[name]))).toBe(format);
  });

  test.each([
    [
      "{% for m in messages %}{% set content = m['content'] %}{% for c in content %}{{ c.text }}{% endfor %}{% endfor %}",
      'openai',
    ],
    [
      "{% set all = messages[1:] %}{% for m in all %}{% for c in m.content | list if c.type == 'text' %}x{% endfor %}{% endfor %}",
      'openai',
    ],
    ['{% for c in messages[0].content %}{{ c.text }}{% endfor %}', 'openai'],
    [
      '{% for m in messages %}{% if true %}{% else %}{% for c in m.content %}x{% endfor %}{% endif %}{% endfor %}',
      'openai',
    ],
    ['{% for m in messages %}{% for c in m.tool_calls %}{{ c.content }}{% endfor %}{% endfor %}', 'string'],
    ['{% for m in messages %}{% for c in tools.content %}x{% endfor %}{% endfor %}', 'string'],
  ])('%s', (source, format) => {
    expect(detectContentFormat(new JinjaTemplate(source))).toBe(format as 'string');
  });

  test('string: parts are joined by newlines, absent content is empty', () => {
    const text = template(FAMILIES.chatml).render(
      input([user(parts), assistant(null)], { addGenerationPrompt: false }),
    );
    expect(text).toBe('<|im_start|>user\na\nb\nc<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n');
  });

  test('openai: parts stay parts, a string is one', () => {
    const vision = template(FAMILIES.vision);
    expect(vision.render(input([user(parts), user('d')]))).toBe('<user>[a][b][c]<user>[d]<assistant>');
  });

  test('--chat-template-content-format', () => {
    const vision = template(FAMILIES.vision, { contentFormat: 'string' });
    expect(vision.render(input([user(parts)]))).toBe('<user>a\nb\nc<assistant>');
  });

  test.each([
    [
      [{ type: 'image_url', image_url: { url: 'x' } }],
      'messages[0].content[0]: parts of type "image_url" are not supported',
    ],
    [[{ type: 'text' }], 'messages[0].content[0]: a part of type "text" needs the string field "text"'],
    [[{ type: 'toString' }], 'parts of type "toString" are not supported'],
    [[{ type: { a: 1 } }], 'messages[0].content[0]: the type of a part is a string'],
    [[{ type: ['text'], text: 'x' }], 'messages[0].content[0]: the type of a part is a string'],
  ])('refuses %j', (content, message) => {
    expect(refusal(() => demo.render(input([user(content as ChatMessage['content'])]))).message).toContain(message);
  });

  test('refuses arguments that are not JSON', () => {
    const message = { role: 'assistant', tool_calls: [{ function: { name: 'f', arguments: '{' } }] };
    expect(refusal(() => demo.render(input([message]))).message).toBe(
      'messages[0].tool_calls[0].function.arguments is not valid JSON.',
    );
  });
});

describe('continue_final_message', () => {
  const go = { addGenerationPrompt: false, continueFinalMessage: true };

  test.each<[keyof typeof FAMILIES, string, string]>([
    ['chatml', 'The answer ', '<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nThe answer '],
    ['chatml', 'U', '<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\nU'],
    ['chatml', '', '<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n'],
    ['llama3', 'The answer ', '<s><|start|>user<|end|>\nU<|eot|><|start|>assistant<|end|>\nThe answer'],
    ['vision', 'The answer ', '<user>[U]<assistant>[The answer '],
  ])('%s, %j', (family, text, expected) => {
    expect(template(FAMILIES[family]).render(input([user('U'), assistant(text)], go))).toBe(expected);
  });

  test('not with add_generation_prompt, nor where the message does not appear', () => {
    const both = refusal(() => demo.render(input([user('U')], { continueFinalMessage: true })));
    expect(both.message).toContain('Cannot set both');
    const absent = refusal(() => template('nothing').render(input([assistant('A')], go)));
    expect(absent.message).toContain('does not appear in the chat');
    expect(refusal(() => template(FAMILIES.vision).render(input([assistant(null)], go))).message).toContain(
      'no text to continue',
    );
  });
});

describe('where the template comes from', () => {
  const files = {
    'chat_template.jinja': 'from jinja',
    'chat_template.json': { chat_template: 'from json' },
    'tokenizer_config.json': { chat_template: 'from config' },
  };
  const rendered = (folder: string, override: string | null = null) =>
    ChatTemplate.fromFolder(folder, { tokenizer, override }).render(input([user('U')]));

  test('override, .jinja, .json, tokenizer_config.json, in this order', async () => {
    const order = Object.entries(files);
    for (let first = 0; first < order.length; first++) {
      await withTokenizerFolder(Object.fromEntries(order.slice(first)), (folder) => {
        expect(rendered(folder)).toBe(['from jinja', 'from json', 'from config'][first]!);
        expect(rendered(folder, '{{ "inline" }}')).toBe('inline');
        const long = 'x'.repeat(5000);
        expect(rendered(folder, `${long}{{ 1 }}`)).toBe(`${long}1`);
      });
    }
  });

  test('named templates: tool_use for requests with tools', async () => {
    const named = [
      { name: 'default', template: 'plain' },
      { name: 'tool_use', template: 'with tools' },
    ];
    await withTokenizerFolder({ 'tokenizer_config.json': { chat_template: named } }, (folder) => {
      const chat = ChatTemplate.fromFolder(folder, { tokenizer });
      expect(chat.render(input([user('U')]))).toBe('plain');
      expect(chat.render(input([user('U')], { tools: [] }))).toBe('plain');
      expect(chat.render(input([user('U')], { tools: [{}] }))).toBe('with tools');
      expect(chat.source).toBe('plain');
    });
  });

  test('none: only a conversation is refused', async () => {
    await withTokenizerFolder({}, (folder) => {
      const chat = ChatTemplate.fromFolder(folder, { tokenizer });
      expect(chat.source).toBeNull();
      expect(refusal(() => chat.render(input([user('U')]))).message).toContain('has no chat template');
      expect(chat.render(input([user('U')], { chatTemplate: "{{ messages[0]['content'] }}!" }))).toBe('U!');
    });
  });

  test.each([
    ['a broken override', {}, '{% for %}', '--chat-template: the chat template can'],
    ['broken Jinja', { 'chat_template.jinja': '{% for %}' }, null, 'chat_template.jinja: the chat template can'],
    ['broken JSON', { 'tokenizer_config.json': '{' }, null, 'tokenizer_config.json: not valid JSON'],
    ['a number', { 'tokenizer_config.json': { chat_template: 1 } }, null, 'neither a text nor a list'],
    ['a nameless entry', { 'tokenizer_config.json': { chat_template: [{ template: 'x' }] } }, null, 'lacks its name'],
  ])('%s', async (_what, given, override, message) => {
    await withTokenizerFolder(given, (folder) => {
      const load = () => ChatTemplate.fromFolder(folder, { tokenizer, override });
      expect(load).toThrow(message);
      expect(load).toThrow(LoadError);
    });
  });
});

describe("a client's own template", () => {
  const render = (chatTemplate: string) => demo.render(input([user('U')], { chatTemplate }));

  test('is rendered, again and again', () => {
    for (let i = 0; i < 40; i++) expect(render(`{{ messages[0].content }}${i}`)).toBe(`U${i}`);
    expect(render('{{ messages[0].content }}0')).toBe('U0');
  });

  test.each([
    ['broken', '{% if %}', 'chat_template is not a valid template'],
    ['too long', `{# ${'x'.repeat(2 ** 20)} #}`, 'at most 1048576 are allowed'],
    ['unknown function', '{{ nope() }}', "can't render this conversation"],
    ['a huge range', '{% for i in range(10**12) %}x{% endfor %}', 'is longer than'],
    ['a recursion', '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}', "can't render this conversation"],
    [
      'a text that doubles',
      `{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}`,
      'allowed',
    ],
    ['its own refusal', "{{ raise_exception('no ' ~ messages[0].role) }}", 'no user'],
  ])('%s is refused', (_what, source, message) => {
    expect(refusal(() => render(source)).message).toContain(message);
  });

  test('nested loops end at the deadline', () => {
    const loops = '{% for i in range(99999) %}{% for j in range(99999) %}{{ j }}{% endfor %}{% endfor %}';
    expect(() => new JinjaTemplate(loops).render({}, { timeMs: 20, size: 1e9 })).toThrow('took longer than 20 ms');
  });
});

describe('strftime', () => {
  const date = new Date(2026, 0, 5, 15, 4, 9);

  test.each([
    ['%d %b %Y', '05 Jan 2026'],
    ['%A, %B %-d, %y', 'Monday, January 5, 26'],
    ['%H:%M:%S %I %p %j', '15:04:09 03 PM 005'],
    ['%F %T %% %e %a', '2026-01-05 15:04:09 %  5 Mon'],
    ['%Q', '%Q'],
  ])('%s', (format, expected) => {
    expect(strftime(date, format)).toBe(expected);
  });
});
