import { ValidationError } from '../errors/validation-error.ts';
import type { GrammarSpec } from '../sampling/structured-outputs-params.ts';
import { largeInteger } from './large-integer.ts';

/** The ways in which a request can say what its output must be. */
export type Constraint =
  | { kind: 'json'; schema: unknown }
  | { kind: 'json_object' }
  | { kind: 'regex'; pattern: string }
  | { kind: 'choice'; choices: string[] }
  | { kind: 'grammar'; lark: string }
  | { kind: 'ebnf'; ebnf: string }
  | { kind: 'structural_tag'; tags: StructuralTag[] }
  | { kind: 'tag_format'; format: TagFormat }
  /** One of the pieces and nothing else; or several, a line each. */
  | { kind: 'framed'; pieces: FramedJson[]; repeats: boolean };

/** A JSON value of the schema between two texts. */
export interface FramedJson {
  begin: string;
  schema: unknown;
  end: string;
}

/** Text is free until `trigger` comes; then `begin`, which starts with it, a JSON value of the schema, and `end` must. */
export interface StructuralTag {
  trigger: string;
  begin: string;
  schema: unknown;
  end: string;
}

/** A node of a structural tag's newer form, as XGrammar takes it; its documentation says what each means. */
export type TagFormat =
  | { type: 'const_string'; value: string }
  | { type: 'json_schema' | 'qwen_xml_parameter'; json_schema: boolean | Record<string, unknown> }
  | { type: 'any_text' }
  | { type: 'regex'; pattern: string }
  /** EBNF. */
  | { type: 'grammar'; grammar: string }
  | { type: 'sequence' | 'or'; elements: TagFormat[] }
  | TagNode
  | ({ type: 'triggered_tags'; triggers: string[]; tags: TagNode[] } & TagCounts)
  | ({ type: 'tags_with_separator'; tags: TagNode[]; separator: string } & TagCounts);

interface TagNode {
  type: 'tag';
  begin: string;
  content: TagFormat;
  end: string;
}

interface TagCounts {
  at_least_one: boolean;
  stop_after_first: boolean;
}

export interface JsonOptions {
  /** No space or line break but those of `{"a": 1, "b": [2]}`. */
  disableAnyWhitespace: boolean;
  /** Objects with listed properties have no others, where the schema does not say. */
  disableAdditionalProperties: boolean;
  /** Regular expression of the space between tokens; null: as much as a text that is laid out over lines has. */
  whitespacePattern: string | null;
  /** Keywords that the engine can't keep to are dropped, oneOf is read as anyOf. Default false. */
  lenient?: boolean;
}

/** For llguidance. @throws ValidationError for what is no grammar at all, or none of its; the engine judges the rest */
export function grammarSpec(constraint: Constraint, options: JsonOptions): GrammarSpec {
  switch (constraint.kind) {
    case 'json':
      return bounded({ kind: 'json_schema', text: schemaText(constraint.schema, options) }, [], options);
    case 'json_object':
      return bounded({ kind: 'json_schema', text: schemaText({ type: 'object' }, options) }, [], options);
    case 'regex':
      return { kind: 'regex', text: constraint.pattern };
    case 'choice':
      // One terminal: of alternatives of a rule, the engine follows at most some 2,000.
      return {
        kind: 'lark',
        text: `start: CHOICE\nCHOICE: ${constraint.choices.map((choice) => JSON.stringify(choice)).join(' | ')}`,
      };
    case 'grammar':
      return { kind: 'lark', text: constraint.lark };
    case 'ebnf':
      throw new ValidationError('Grammar error: a grammar in EBNF needs XGrammar; llguidance takes Lark');
    case 'framed':
      return bounded(framedGrammar(constraint.pieces, constraint.repeats, options), constraint.pieces, options);
    case 'tag_format':
      throw new ValidationError(`Grammar error: a structural tag of type ${constraint.format.type} needs XGrammar`);
    case 'structural_tag':
      return bounded(structuralTagGrammar(constraint.tags, options), constraint.tags, options);
  }
}

/** White space of JSON that the client has not said anything about has an end, in the whole text or behind where the pieces begin. */
function bounded(spec: GrammarSpec, pieces: readonly { begin: string }[], options: JsonOptions): GrammarSpec {
  if (options.disableAnyWhitespace || options.whitespacePattern !== null) return spec;
  return { ...spec, jsonBegins: [...new Set(pieces.map(({ begin }) => begin))] };
}

function schemaText(schema: unknown, options: JsonOptions): string {
  return JSON.stringify(preparedSchema(schema, options));
}

/** The schema with the engine's options, which are a member of it. */
function preparedSchema(schema: unknown, options: JsonOptions): Record<string, unknown> {
  const { whitespacePattern, disableAnyWhitespace, lenient = false } = options;
  return {
    ...checkedSchema(schema, options),
    'x-guidance': {
      whitespace_flexible: !disableAnyWhitespace,
      ...(disableAnyWhitespace || whitespacePattern === null ? {} : { whitespace_pattern: whitespacePattern }),
      lenient,
      coerce_one_of: lenient,
    },
  };
}

/** A schema as an object, closed where that is asked for. Throws ValidationError for what is no schema, or asks for an integer that can't be written. */
export function checkedSchema(schema: unknown, options: JsonOptions): Record<string, unknown> {
  if (schema === true) return {};
  if (!isObject(schema)) {
    throw new ValidationError(`Grammar error: a JSON schema is an object, not ${JSON.stringify(schema)}`);
  }
  const pointer = largeInteger(schema);
  if (pointer !== null) {
    throw new ValidationError(
      `Grammar error: integers beyond 2^53 can not be told apart, so no value can be held to one (at ${pointer} of the schema)`,
    );
  }
  return options.disableAdditionalProperties ? (closeObjects(schema) as Record<string, unknown>) : schema;
}

function closeObjects(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(closeObjects);
  if (!isObject(schema)) return schema;
  const closed = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, closeObjects(value)]));
  const isOpen = isObject(schema.properties) && !Object.hasOwn(schema, 'additionalProperties');
  return isOpen ? { ...closed, additionalProperties: false } : closed;
}

function framedGrammar(pieces: readonly FramedJson[], repeats: boolean, options: JsonOptions): GrammarSpec {
  const rules = pieces.map(
    ({ begin, schema, end }, i) =>
      `piece_${i}: ${JSON.stringify(begin)} %json ${schemaText(schema, options)} ${JSON.stringify(end)}`,
  );
  const piece = `piece: ${pieces.map((_, i) => `piece_${i}`).join(' | ')}`;
  const start = repeats ? 'start: piece ("\\n" piece)*' : 'start: piece';
  return { kind: 'lark', text: [start, piece, ...rules].join('\n') };
}

/** Any text without a trigger, then, at a trigger, the rest of one of its tags; again and again. */
function structuralTagGrammar(tags: readonly StructuralTag[], options: JsonOptions): GrammarSpec {
  const triggers = [...new Set(tags.map(({ trigger }) => trigger))];
  const rules = ['start: (trigger_any)* TAIL'];
  rules.push(`trigger_any: ${triggers.map((_, i) => `trigger_${i}`).join(' | ')}`);
  triggers.forEach((trigger, i) => {
    const rest = tags.flatMap((tag, index) => (tag.trigger === trigger ? [`tag_${index}`] : []));
    rules.push(`trigger_${i}: TEXT_${i} (${rest.join(' | ')})`);
    rules.push(`TEXT_${i}: (FREE ${JSON.stringify(trigger)})`);
  });
  tags.forEach(({ trigger, begin, schema, end }, index) => {
    const rest = begin.slice(trigger.length);
    const parts = [rest === '' ? '' : JSON.stringify(rest), `%json ${schemaText(schema, options)}`];
    rules.push(
      `tag_${index}: ${[...parts, end === '' ? '' : JSON.stringify(end)].filter((part) => part !== '').join(' ')}`,
    );
  });
  const anywhere = triggers.map((trigger) => `/(?s:.*)/ ${JSON.stringify(trigger)} /(?s:.*)/`);
  rules.push(`FREE: /(?s:.*)/ & ~(${anywhere.join(' | ')})`, 'TAIL: FREE');
  return { kind: 'lark', text: rules.join('\n') };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
