import type { Constraint, StructuralTag, TagFormat } from '../../structured-output/grammar-spec.ts';
import { notSupported } from '../errors.ts';
import { isObject } from './fields.ts';
import { wrongValue } from './wrong-value.ts';

type Json = Record<string, unknown>;

/**
 * A structural tag in either of its forms. The older one is `{structures: [{begin, schema, end}], triggers: […]}`, where each structure starts with a
 * trigger; the newer one `{format: {type, …}}`, a tree whose nodes are XGrammar's.
 *
 * @param field where it was given, for errors
 * @throws ValidationError that names what is wrong, or not supported
 */
export function structuralTag(given: Json, field: string): Constraint {
  if (given.format == null) return { kind: 'structural_tag', tags: structures(given, field) };
  const format = readFormat(given.format, `${field}.format`);
  return triggeredJson(format) ?? { kind: 'tag_format', format };
}

function structures({ structures: list, triggers }: Json, field: string): StructuralTag[] {
  const starts = texts(triggers, `${field}.triggers`);
  if (!Array.isArray(list) || list.length === 0) {
    throw wrongValue(`${field}.structures`, 'a list of structures', list);
  }
  return list.map((structure: unknown, i) => {
    const at = `${field}.structures[${i}]`;
    if (!isObject(structure)) throw wrongValue(at, 'an object with begin, schema and end', structure);
    const schema = structure.schema ?? structure.structural_tag_schema ?? {};
    const begin = text(structure.begin, `${at}.begin`);
    return { trigger: triggerOf(begin, starts, `${at}.begin`), begin, schema, end: text(structure.end, `${at}.end`) };
  });
}

/** What both engines take: text with JSON where a trigger comes; null for any other format. */
function triggeredJson(format: TagFormat): Constraint | null {
  if (format.type !== 'triggered_tags' || format.at_least_one || format.stop_after_first) return null;
  const tags = format.tags.map(({ begin, content, end }): StructuralTag | null => {
    const trigger = format.triggers.find((each) => begin.startsWith(each))!;
    return content.type === 'json_schema' ? { trigger, begin, schema: content.json_schema, end } : null;
  });
  return tags.every((tag) => tag !== null) ? { kind: 'structural_tag', tags } : null;
}

/** Formats that XGrammar's newer versions have, and the one that is served does not. */
const NOT_THERE = new Set(
  'optional plus star repeat dispatch token exclude_token any_tokens token_triggered_tags token_dispatch'.split(' '),
);

const READERS: { [Type in TagFormat['type']]: (node: Json, field: string) => TagFormat } = {
  const_string: ({ value }, field) => ({ type: 'const_string', value: nonEmpty(value, `${field}.value`) }),
  json_schema: readJsonSchema,
  qwen_xml_parameter: ({ json_schema: schema }, field) => ({
    type: 'qwen_xml_parameter',
    json_schema: schemaOf(schema, `${field}.json_schema`),
  }),
  any_text: (node, field) => {
    refuseOthers(node, ['excludes', 'max_tokens', 'max_chars'], field);
    return { type: 'any_text' };
  },
  regex: (node, field) => {
    refuseOthers(node, ['excludes'], field);
    return { type: 'regex', pattern: text(node.pattern, `${field}.pattern`) };
  },
  grammar: ({ grammar }, field) => ({ type: 'grammar', grammar: text(grammar, `${field}.grammar`) }),
  sequence: ({ elements }, field) => ({ type: 'sequence', elements: formats(elements, `${field}.elements`) }),
  or: ({ elements }, field) => ({ type: 'or', elements: formats(elements, `${field}.elements`) }),
  tag: readTag,
  triggered_tags: (node, field) => {
    refuseOthers(node, ['excludes'], field);
    const triggers = texts(node.triggers, `${field}.triggers`);
    const tags = tagsOf(node.tags, `${field}.tags`);
    tags.forEach(({ begin }, i) => {
      triggerOf(begin, triggers, `${field}.tags[${i}].begin`);
    });
    return { type: 'triggered_tags', triggers, tags, ...counts(node, field) };
  },
  tags_with_separator: (node, field) => ({
    type: 'tags_with_separator',
    tags: tagsOf(node.tags, `${field}.tags`),
    separator: text(node.separator, `${field}.separator`),
    ...counts(node, field),
  }),
};

function readFormat(node: unknown, field: string): TagFormat {
  if (!isObject(node)) throw wrongValue(field, 'an object with a type', node);
  const { type } = node;
  if (typeof type === 'string' && NOT_THERE.has(type)) throw notSupported(`${field}.type`, `"${type}" is not there`);
  if (typeof type !== 'string' || !Object.hasOwn(READERS, type)) {
    throw wrongValue(`${field}.type`, `one of ${Object.keys(READERS).join(', ')}`, type);
  }
  return READERS[type as TagFormat['type']](node, field);
}

function readTag(node: Json, field: string): TagFormat & { type: 'tag' } {
  const { begin, content, end } = node;
  for (const [name, value] of Object.entries({ begin, end })) {
    if (typeof value === 'object' && value !== null) throw notSupported(`${field}.${name}`, 'only a text is');
  }
  return {
    type: 'tag',
    begin: text(begin, `${field}.begin`),
    content: readFormat(content, `${field}.content`),
    end: text(end, `${field}.end`),
  };
}

function readJsonSchema(node: Json, field: string): TagFormat {
  const { json_schema: given, style = 'json' } = node;
  refuseOthers(node, ['any_order'], field);
  const schema = schemaOf(given, `${field}.json_schema`);
  if (style === 'json') return { type: 'json_schema', json_schema: schema };
  if (style === 'qwen_xml') return { type: 'qwen_xml_parameter', json_schema: schema };
  throw notSupported(`${field}.style`, 'only json and qwen_xml are');
}

function schemaOf(schema: unknown, field: string): boolean | Json {
  if (typeof schema === 'boolean' || isObject(schema)) return schema;
  throw wrongValue(field, 'a JSON schema', schema);
}

function formats(list: unknown, field: string): TagFormat[] {
  if (!Array.isArray(list) || list.length === 0) throw wrongValue(field, 'a list of formats', list);
  return list.map((node: unknown, i) => readFormat(node, `${field}[${i}]`));
}

function tagsOf(list: unknown, field: string): (TagFormat & { type: 'tag' })[] {
  if (!Array.isArray(list) || list.length === 0) throw wrongValue(field, 'a list of tags', list);
  return list.map((node: unknown, i) => {
    const at = `${field}[${i}]`;
    if (!isObject(node)) throw wrongValue(at, 'an object with begin, content and end', node);
    if ((node.type ?? 'tag') !== 'tag') throw wrongValue(`${at}.type`, 'tag', node.type);
    return readTag(node, at);
  });
}

function counts(node: Json, field: string) {
  return {
    at_least_one: boolean(node.at_least_one, `${field}.at_least_one`),
    stop_after_first: boolean(node.stop_after_first, `${field}.stop_after_first`),
  };
}

/** Members that say something, and are not obeyed. */
function refuseOthers(node: Json, names: readonly string[], field: string): void {
  for (const name of names) {
    const value = node[name] ?? false;
    const asks = Array.isArray(value) ? value.length > 0 : value !== false;
    if (asks) throw notSupported(`${field}.${name}`);
  }
}

function triggerOf(begin: string, triggers: readonly string[], field: string): string {
  const trigger = triggers.find((each) => begin.startsWith(each));
  if (trigger === undefined) throw wrongValue(field, 'a text that starts with a trigger', begin);
  return trigger;
}

function texts(value: unknown, field: string): string[] {
  const are =
    Array.isArray(value) && value.length > 0 && value.every((each) => typeof each === 'string' && each !== '');
  if (!are) throw wrongValue(field, 'a list of texts', value);
  return value as string[];
}

function text(value: unknown, field: string): string {
  if (typeof value !== 'string') throw wrongValue(field, 'a text', value);
  return value;
}

function nonEmpty(value: unknown, field: string): string {
  const given = text(value, field);
  if (given === '') throw wrongValue(field, 'a text that is not empty', value);
  return given;
}

function boolean(value: unknown, field: string): boolean {
  if ((value ?? false) === false || value === true) return value === true;
  throw wrongValue(field, 'a boolean', value);
}
