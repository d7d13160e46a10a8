type Json = Record<string, unknown>;

/** A part of a schema that is a schema itself, and where it is: a JSON pointer from the whole. */
export interface Subschema {
  schema: unknown;
  pointer: string;
}

/** Compiles that are spent on the search: about two for each level and each doubling of its width. */
const MAX_COMPILES = 100;
const TIME_LIMIT_MS = 1000;

/** Keywords whose value is a schema, a list of schemas, or schemas by name. Definitions come first: what refers to a wrong one is wrong too. */
const BY_NAME = ['$defs', 'definitions', 'properties', 'patternProperties', 'dependentSchemas'] as const;
const LISTS = ['prefixItems', 'anyOf', 'oneOf', 'allOf'] as const;
const SINGLE = ['items', 'additionalProperties', 'not', 'if', 'then', 'else', 'contains', 'propertyNames'] as const;

/**
 * Where in a schema that an engine refuses the fault is: a JSON pointer to the innermost part that is refused by itself with the same words.
 * null where that is the whole, or where parts alone are not refused (a reference to what is not among the definitions, say).
 *
 * @param judge the engine's words against a schema; null when it takes it
 */
export async function schemaFault(
  root: unknown,
  message: string,
  judge: (schema: Json) => Promise<string | null>,
  timeLimitMs = TIME_LIMIT_MS,
): Promise<string | null> {
  const { $defs, definitions } = isObject(root) ? root : {};
  const definitionsOfRoot = { ...(isObject($defs) && { $defs }), ...(isObject(definitions) && { definitions }) };
  const deadline = performance.now() + timeLimitMs;
  let numCompiles = 0;

  const isRefused = async (parts: Subschema[]): Promise<boolean> => {
    if (parts.length === 0 || numCompiles >= MAX_COMPILES || performance.now() > deadline) return false;
    numCompiles++;
    return (await judge({ ...definitionsOfRoot, anyOf: parts.map(({ schema }) => schema) })) === message;
  };
  const firstRefused = async (parts: Subschema[]): Promise<Subschema | null> => {
    if (!(await isRefused(parts))) return null;
    if (parts.length === 1) return parts[0]!;
    const half = parts.length >> 1;
    return (await firstRefused(parts.slice(0, half))) ?? firstRefused(parts.slice(half));
  };

  let place: Subschema | null = null;
  let next: Subschema | null = { schema: root, pointer: '' };
  while (next !== null) {
    place = next;
    next = await firstRefused(subschemas(place));
  }
  return place?.pointer || null;
}

/** The parts of a schema that are schemas themselves. */
export function subschemas({ schema, pointer }: Subschema): Subschema[] {
  if (!isObject(schema)) return [];
  const at = (keyword: string, key: string | number, part: unknown) => ({
    schema: part,
    pointer: `${pointer}/${keyword}/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`,
  });
  const named = BY_NAME.flatMap((keyword) => {
    const map = schema[keyword];
    return isObject(map) ? Object.entries(map).map(([key, part]) => at(keyword, key, part)) : [];
  });
  const listed = LISTS.flatMap((keyword) => {
    const list = schema[keyword];
    return Array.isArray(list) ? list.map((part, i) => at(keyword, i, part)) : [];
  });
  const single = SINGLE.filter((keyword) => keyword in schema).map((keyword) => ({
    schema: schema[keyword],
    pointer: `${pointer}/${keyword}`,
  }));
  return [...named, ...listed, ...single];
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
