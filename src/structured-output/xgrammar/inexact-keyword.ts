type Json = Record<string, unknown>;

/** They say nothing about a value. */
const ANNOTATIONS = new Set(
  '$schema $id $comment $defs definitions title description default examples deprecated readOnly writeOnly'.split(' '),
);
/** Where one of them is, XGrammar looks at nothing beside it. */
const ALONE = ['$ref', 'const', 'enum', 'anyOf'] as const;
/** What it keeps to exactly, by the type of the value; found by trying texts that a schema allows and forbids. */
const BY_TYPE: Readonly<Record<string, readonly string[]>> = {
  object: ['properties', 'required', 'additionalProperties'],
  array: ['items', 'prefixItems', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength'],
  integer: [],
  number: [],
  boolean: [],
  null: [],
};

/** The first keyword of a JSON schema that XGrammar reads more loosely, or otherwise, than JSON Schema does; null where it keeps to all. */
export function inexactKeyword(schema: unknown): string | null {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) return null;
  const given = schema as Json;
  const own = inexactHere(given);
  if (own !== null) return own;
  for (const child of subschemas(given)) {
    const found = inexactKeyword(child);
    if (found !== null) return found;
  }
  return null;
}

function inexactHere(schema: Json): string | null {
  const keywords = Object.keys(schema).filter((keyword) => !ANNOTATIONS.has(keyword));
  const alone = ALONE.find((keyword) => keywords.includes(keyword));
  if (alone !== undefined) return keywords.find((keyword) => keyword !== alone) ?? null;
  const { type } = schema;
  if (type === undefined) return keywords[0] ?? null;
  const types = Array.isArray(type) ? type : [type];
  const known = new Set(types.flatMap((each) => BY_TYPE[String(each)] ?? []));
  const unknown = keywords.find((keyword) => keyword !== 'type' && !known.has(keyword));
  return unknown ?? unlistedRequired(schema) ?? openProperties(schema);
}

/** Only listed properties are required of an object. */
function unlistedRequired({ required, properties }: Json): string | null {
  if (!Array.isArray(required)) return null;
  const listed = Object.keys((properties ?? {}) as Json);
  return required.every((name) => listed.includes(String(name))) ? null : 'required';
}

/** In an object that may have further properties, a listed one may come as a further one, with any value. */
function openProperties({ properties, additionalProperties }: Json): string | null {
  const isListed = Object.keys((properties ?? {}) as Json).length > 0;
  return isListed && additionalProperties !== false ? 'additionalProperties' : null;
}

function subschemas(schema: Json): unknown[] {
  const { properties, $defs, definitions, additionalProperties, items, prefixItems, anyOf } = schema;
  const maps = [properties, $defs, definitions].filter((map) => map !== undefined && map !== null);
  const lists = [prefixItems, anyOf].filter(Array.isArray);
  return [...maps.flatMap((map) => Object.values(map as Json)), additionalProperties, items, ...lists.flat()];
}
