import { describe, expect, test } from 'bun:test';
import type { GenerationFields } from '../../src/server/protocol/generation-fields.ts';
import { structuredOutputsOf } from '../../src/server/protocol/structured-outputs.ts';
import { grammarSpec } from '../../src/structured-output/grammar-spec.ts';

const constraintOf = (fields: object) => structuredOutputsOf(fields as GenerationFields)?.constraint;
const schema = { type: 'integer' };
const OLDER = { structures: [{ begin: '<a>', schema, end: '</a>' }], triggers: ['<'] };
const tag = { begin: '<a>', content: { type: 'json_schema', json_schema: schema }, end: '</a>' };
const newer = (extra: object) => ({ format: { type: 'triggered_tags', triggers: ['<'], tags: [tag], ...extra } });
const TAGS = { kind: 'structural_tag' as const, tags: [{ trigger: '<', begin: '<a>', schema, end: '</a>' }] };

describe('structural tags', () => {
  test.each<[string, object]>([
    ['the older form', OLDER],
    ['the newer form', newer({})],
  ])('%s, as a response format and as a structured output', (_, form) => {
    expect(constraintOf({ response_format: { type: 'structural_tag', ...form } })).toEqual(TAGS);
    expect(constraintOf({ structured_outputs: { structural_tag: JSON.stringify(form) } })).toEqual(TAGS);
  });

  const formatOf = (format: object) => constraintOf({ response_format: { type: 'structural_tag', format } });

  test.each<object>([
    { type: 'const_string', value: 'a' },
    { type: 'any_text' },
    { type: 'regex', pattern: 'a+' },
    { type: 'grammar', grammar: 'root ::= "a"' },
    { type: 'json_schema', json_schema: schema },
    { type: 'qwen_xml_parameter', json_schema: schema },
    { type: 'sequence', elements: [{ type: 'any_text' }] },
    { type: 'or', elements: [{ type: 'any_text' }] },
    { type: 'tag', begin: '<', content: { type: 'any_text' }, end: '>' },
    {
      ...{ type: 'triggered_tags', triggers: ['<'], at_least_one: true, stop_after_first: false },
      tags: [{ type: 'tag', ...tag }],
    },
    {
      ...{ type: 'tags_with_separator', separator: ', ', at_least_one: false, stop_after_first: true },
      tags: [{ type: 'tag', ...tag }],
    },
  ])('%j goes to XGrammar as it is', (format) => {
    expect(formatOf(format)).toEqual({ kind: 'tag_format', format } as never);
  });

  test('the style qwen_xml is another name', () => {
    expect(formatOf({ type: 'json_schema', json_schema: schema, style: 'qwen_xml' })).toEqual(
      formatOf({ type: 'qwen_xml_parameter', json_schema: schema })!,
    );
  });

  test.each<[object, string]>([
    ...['optional', 'plus', 'star', 'repeat', 'dispatch', 'token', 'any_tokens', 'token_triggered_tags'].map(
      (type): [object, string] => [{ type }, `"${type}" is not there`],
    ),
    [{ type: 'no_such_type' }, '`response_format.format.type` must be one of const_string, json_schema'],
    [{ type: 'sequence' }, 'response_format.format.elements'],
    [{ type: 'or', elements: [{ type: 'star' }] }, 'response_format.format.elements[0].type'],
    [{ type: 'const_string', value: '' }, 'response_format.format.value'],
    [{ type: 'json_schema', json_schema: 3 }, 'response_format.format.json_schema'],
    [{ type: 'json_schema', json_schema: schema, style: 'glm_xml' }, 'response_format.format.style'],
    [{ type: 'json_schema', json_schema: schema, any_order: true }, 'response_format.format.any_order'],
    [{ type: 'any_text', excludes: ['x'] }, 'response_format.format.excludes'],
    [{ type: 'any_text', max_tokens: 3 }, 'response_format.format.max_tokens'],
    [
      { type: 'tag', begin: { type: 'token' }, content: { type: 'any_text' }, end: '>' },
      'response_format.format.begin',
    ],
    [{ type: 'tag', begin: '<', content: { type: 'any_text' }, end: ['>', ')'] }, 'response_format.format.end'],
    [{ type: 'tag', begin: '<', content: 'any_text', end: '>' }, 'response_format.format.content'],
    [newer({ tags: 3 }).format, 'response_format.format.tags'],
    [newer({ triggers: ['{'] }).format, 'response_format.format.tags[0].begin'],
    [newer({ at_least_one: 'yes' }).format, 'response_format.format.at_least_one'],
  ])('%j is refused by name', (format, message) => {
    expect(() => formatOf(format)).toThrow(message);
  });
});

test('a grammar with ::= is EBNF, another one Lark', () => {
  const grammar = (text: string) => constraintOf({ structured_outputs: { grammar: text } });
  expect(grammar('root ::= "a"')).toEqual({ kind: 'ebnf', ebnf: 'root ::= "a"' });
  expect(grammar('start: "a"')).toEqual({ kind: 'grammar', lark: 'start: "a"' });
});

test.each(['json', 'structural_tag'])('%s as text is refused when it nests without bound', (field) => {
  const deep = `${'{"not":'.repeat(60_000)}true${'}'.repeat(60_000)}`;
  expect(() => constraintOf({ structured_outputs: { [field]: deep } })).toThrow('nests more than 250 levels deep');
});

describe('fields of structured_outputs', () => {
  const askedFor = (fields: object) => structuredOutputsOf({ structured_outputs: fields } as GenerationFields)!;

  test('json_object is any object', () => {
    expect(askedFor({ json_object: true }).constraint).toEqual({ kind: 'json_object' });
    expect(constraintOf({ response_format: { type: 'json_object' } })).toEqual({ kind: 'json_object' });
  });

  test('disable_any_whitespace, disable_additional_properties and whitespace_pattern change how a schema is read', () => {
    const person = { type: 'object', properties: { name: { type: 'string' } } };
    const read = (fields: object) => {
      const { constraint, options } = askedFor({ json: person, ...fields });
      return JSON.parse(grammarSpec(constraint, options).text);
    };
    const plain = read({});
    expect(plain).toMatchObject({ ...person, 'x-guidance': { whitespace_flexible: true } });
    expect(plain.additionalProperties).toBeUndefined();
    expect(read({ disable_any_whitespace: true })['x-guidance'].whitespace_flexible).toBe(false);
    expect(read({ disable_additional_properties: true }).additionalProperties).toBe(false);
    expect(read({ whitespace_pattern: '[ ]?' })['x-guidance'].whitespace_pattern).toBe('[ ]?');
  });
});
