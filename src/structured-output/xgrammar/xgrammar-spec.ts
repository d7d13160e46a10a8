import { ValidationError } from '../../errors/validation-error.ts';
import type { GrammarSpec } from '../../sampling/structured-outputs-params.ts';
import {
  type Constraint,
  checkedSchema,
  type FramedJson,
  type JsonOptions,
  type StructuralTag,
  type TagFormat,
} from '../grammar-spec.ts';

/** A constraint as XGrammar takes it. */
export type XGrammarSpec = GrammarSpec & { kind: 'ebnf' | 'xgrammar_json' | 'xgrammar_tag' };

export function isXGrammarSpec(spec: GrammarSpec): spec is XGrammarSpec {
  return spec.kind === 'ebnf' || spec.kind === 'xgrammar_json' || spec.kind === 'xgrammar_tag';
}

/** @throws ValidationError for what only llguidance knows */
export function xgrammarSpec(constraint: Constraint, options: JsonOptions): XGrammarSpec {
  switch (constraint.kind) {
    case 'json':
      return jsonSpec(constraint.schema, options);
    case 'json_object':
      return jsonSpec({ type: 'object' }, options);
    case 'regex':
      return tagSpec({ type: 'regex', pattern: constraint.pattern }, options);
    case 'choice':
      return { kind: 'ebnf', text: `root ::= ${constraint.choices.map(ebnfText).join(' | ')}` };
    case 'ebnf':
      return { kind: 'ebnf', text: constraint.ebnf };
    case 'framed':
      return tagSpec(framedTags(constraint.pieces, constraint.repeats), options);
    case 'structural_tag':
      return tagSpec(triggeredTags(constraint.tags), options);
    case 'tag_format':
      return tagSpec(constraint.format, options);
    case 'grammar':
      throw new ValidationError('Grammar error: a grammar in Lark needs llguidance; XGrammar takes EBNF');
  }
}

function jsonSpec(schema: unknown, options: JsonOptions): XGrammarSpec {
  const text = { schema: checkedSchema(schema, options), any_whitespace: anyWhitespace(options) };
  return { kind: 'xgrammar_json', text: JSON.stringify(text) };
}

/** The engine makes grammars of the schemas within it where their white space is not any. */
function tagSpec(format: TagFormat, options: JsonOptions): XGrammarSpec {
  const text = { format: withClosedObjects(format, options), any_whitespace: anyWhitespace(options) };
  return { kind: 'xgrammar_tag', text: JSON.stringify(text) };
}

function anyWhitespace({ disableAnyWhitespace, whitespacePattern }: JsonOptions): boolean {
  if (whitespacePattern !== null) {
    throw new ValidationError('Grammar error: whitespace_pattern needs llguidance, XGrammar has no such option');
  }
  return !disableAnyWhitespace;
}

function withClosedObjects(format: TagFormat, options: JsonOptions): TagFormat {
  return mapSchemas(format, (node) => ({ ...node, json_schema: checkedSchema(node.json_schema, options) }));
}

type SchemaNode = TagFormat & { type: 'json_schema' | 'qwen_xml_parameter' };

/** The format with other nodes in place of those that have a schema. */
export function mapSchemas(format: TagFormat, map: (node: SchemaNode) => TagFormat): TagFormat {
  const mapTag = <T extends TagFormat & { type: 'tag' }>(tag: T) => ({ ...tag, content: mapSchemas(tag.content, map) });
  switch (format.type) {
    case 'json_schema':
    case 'qwen_xml_parameter':
      return map(format);
    case 'sequence':
    case 'or':
      return { ...format, elements: format.elements.map((each) => mapSchemas(each, map)) };
    case 'tag':
      return mapTag(format);
    case 'triggered_tags':
    case 'tags_with_separator':
      return { ...format, tags: format.tags.map(mapTag) };
    default:
      return format;
  }
}

/** The JSON schemas that XGrammar is to keep to. */
export function schemasOf(constraint: Constraint): unknown[] {
  if (constraint.kind === 'json') return [constraint.schema];
  if (constraint.kind === 'structural_tag') return constraint.tags.map(({ schema }) => schema);
  const schemas: unknown[] = [];
  if (constraint.kind === 'tag_format') {
    mapSchemas(constraint.format, (node) => {
      schemas.push(node.json_schema);
      return node;
    });
  }
  return schemas;
}

function triggeredTags(tags: readonly StructuralTag[]): TagFormat {
  const triggers = [...new Set(tags.map(({ trigger }) => trigger))];
  return { type: 'triggered_tags', triggers, tags: tags.map(tag), at_least_one: false, stop_after_first: false };
}

function framedTags(pieces: readonly FramedJson[], repeats: boolean): TagFormat {
  const tags = pieces.map(tag);
  if (!repeats) return { type: 'or', elements: tags };
  return { type: 'tags_with_separator', tags, separator: '\n', at_least_one: true, stop_after_first: false };
}

function tag({ begin, schema, end }: FramedJson): TagFormat & { type: 'tag' } {
  const json_schema = schema as boolean | Record<string, unknown>;
  return { type: 'tag', begin, content: { type: 'json_schema', json_schema }, end };
}

/** A terminal of EBNF. Control characters have no other way to be written. */
function ebnfText(text: string): string {
  const escaped = Array.from(text, (char) => {
    if (char === '"' || char === '\\') return `\\${char}`;
    const code = char.codePointAt(0)!;
    return code < 0x20 || code === 0x7f ? `\\x${code.toString(16).padStart(2, '0')}` : char;
  });
  return `"${escaped.join('')}"`;
}
