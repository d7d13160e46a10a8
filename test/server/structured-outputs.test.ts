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

  test.each<[object, string]>([
    [{ type: 'sequence' }, 'response_format.format.type'],
    [{ at_least_one: true }, 'response_format.format.at_least_one'],
    [{ tags: 3 }, 'response_format.format.tags'],
    [{ tags: [{ ...tag, content: { type: 'any_text' } }] }, 'response_format.format.tags[0].content.type'],
    [{ triggers: ['{'] }, 'response_format.structures[0].begin'],
  ])('%j is refused by name', (extra, field) => {
    const given = { response_format: { type: 'structural_tag', ...newer(extra) } };
    expect(() => constraintOf(given)).toThrow(field);
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
