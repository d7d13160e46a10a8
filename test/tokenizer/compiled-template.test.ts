import { describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parse, Template, tokenize } from '@huggingface/jinja';
import fc from 'fast-check';
import { CompiledTemplate, type TemplateNode } from '../../src/tokenizer/compiled-template.ts';
import { DEMO } from './tokenizer-folder.ts';

const MAX_SIZE = 1000;
const CONSTANTS = { bos_token: '<s>', eos_token: '</s>', true: true, none: null, raise_exception: () => {} };

function compiled(source: string, variables: Record<string, unknown>): string | null {
  const program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
  const template = new CompiledTemplate(program as unknown as TemplateNode, new Map(Object.entries(CONSTANTS)));
  return template.render(variables, MAX_SIZE);
}

/** What the library makes of it; null: an error. */
function interpreted(source: string, variables: Record<string, unknown>): string | null {
  try {
    return new Template(source).render({ bos_token: '<s>', eos_token: '</s>', ...variables });
  } catch {
    return null;
  }
}

const DEMO_TEMPLATE = JSON.parse(readFileSync(join(DEMO, 'tokenizer_config.json'), 'utf8')).chat_template as string;
const messages = [
  { role: 'system', content: ' Be brief. ' },
  { role: 'user', content: 'Hi' },
  { role: 'assistant', content: '' },
  { role: 'user', content: 'é\n"quoted"' },
];

const SOURCES: readonly (readonly [what: string, source: string])[] = [
  ['the demo model', DEMO_TEMPLATE],
  [
    'slices and branches',
    `{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set system = messages[0].content | trim %}{% else %}{% set rest = messages %}{% endif %}
{{ bos_token }}{% for message in rest %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('order') }}{% endif %}
{{ loop.index }}/{{ loop.length }} {% if loop.last and not loop.first %}last {% endif %}{{ message.content if message.content else '-' }}{{ system }}{% else %}none{% endfor %}{{ eos_token }}`,
  ],
  [
    'tests, membership and lengths',
    `{% for m in messages %}{{ 'u' if 'us' in m.role else 'x' }}{{ 1 if 'content' in m and m.absent is not defined else 2 }}{{ m.content | length }}{% if m.tool_calls is none or m.name is string %}!{% endif %}{% endfor %}`,
  ],
  [
    'what is set in a loop stays in it',
    `{% set a = 'x' %}{% for m in messages %}{{ a }}{% set a = m.role %}{% endfor %}{{ a }}`,
  ],
  [
    'undefined names and members of nothing',
    `{{ nothing }}{{ nothing.at_all }}{{ messages[9].role }}{% if nothing %}a{% elif nope is undefined %}b{% endif %}`,
  ],
  ['numbers', `{{ 7 % 3 }} {{ 2 - 5 }} {% if -1 < 0 and 2 >= 2 and 1 <= 3 and not 1 > 2 %}ordered{% endif %}`],
];

describe('what is compiled is rendered as the library renders it', () => {
  test.each(SOURCES)('%s', (_, source) => {
    for (const conversation of [messages, messages.slice(1), messages.slice(0, 1), []]) {
      for (const addGenerationPrompt of [true, false]) {
        const variables = { messages: conversation, add_generation_prompt: addGenerationPrompt, tools: null };
        const expected = interpreted(source, variables);
        if (expected !== null) expect(compiled(source, variables)).toBe(expected);
      }
    }
  });
});

describe('random conversations', () => {
  const text = fc.constantFrom('', ' ', 'Hi', ' padded ', 'é\n"q"', '{{ x }}', '<|im_end|>');
  const message = fc.record(
    {
      role: fc.constantFrom('system', 'user', 'assistant', 'tool'),
      content: fc.oneof(
        text,
        fc.constant(null),
        fc.array(fc.record({ type: fc.constant('text'), text }), { maxLength: 2 }),
      ),
      name: text,
      tool_calls: fc.constantFrom(null, [], [{ function: { name: 'f', arguments: '{}' } }]),
    },
    { requiredKeys: ['role'] },
  );

  test.each(SOURCES)('%s: the same text, or none', (_, source) => {
    fc.assert(
      fc.property(fc.array(message, { maxLength: 4 }), fc.boolean(), (conversation, addGenerationPrompt) => {
        const variables = { messages: conversation, add_generation_prompt: addGenerationPrompt, tools: null };
        const text = compiled(source, variables);
        if (text !== null) expect(text).toBe(interpreted(source, variables)!);
      }),
      { numRuns: 500 },
    );
  });
});

describe('left to the interpreter', () => {
  test.each([
    ['a filter', `{{ messages | tojson }}`],
    ['a macro', `{% macro m() %}x{% endmacro %}{{ m() }}`],
    ['a namespace', `{% set ns = namespace(a=1) %}{{ ns.a }}`],
    ['a method', `{{ messages[0].items() }}`],
    ['a step', `{{ messages[::-1] }}`],
    ['printed truth', `{{ true }}`],
    ['a printed list', `{{ messages }}`],
    ['a loop over an object', `{% for key in messages[0] %}{{ key }}{% endfor %}`],
    ['text and a number', `{{ 'a' + 1 }}`],
    ['nothing added', `{{ 'a' + nothing }}`],
    ['objects compared', `{% if messages == messages %}x{% endif %}`],
    ['a name of the language', `{{ 'a' is constructor }}`],
    ['an unknown test', `{% if 1 is odd %}x{% endif %}`],
    ['too much text', `{% set a = 'aaaaaaaa' %}${'{% set a = a + a %}'.repeat(10)}`],
    ['too many turns', '{% for a in list %}'.repeat(4) + '{% endfor %}'.repeat(4)],
  ])('%s', (_, source) => {
    expect(compiled(source, { messages, list: Array.from({ length: 100 }, (_, i) => i) })).toBeNull();
  });

  test('but not where it is not reached', () => {
    expect(compiled(`{% if tools %}{{ tools | tojson }}{% endif %}ok`, { tools: [] })).toBe('ok');
    expect(compiled(`{% if tools %}{{ tools | tojson }}{% endif %}ok`, { tools: [1] })).toBeNull();
  });
});
