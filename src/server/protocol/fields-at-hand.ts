import * as v from 'valibot';

type ObjectSchema = v.ObjectSchema<v.ObjectEntries, v.ErrorMessage<v.ObjectIssue> | undefined>;

/** Schemas that are kept of an endpoint: clients send bodies of few forms. */
const MAX_FORMS = 256;

/** By schema, then by the names of the fields that a body has of it. */
const formsOf = new WeakMap<object, Map<string, ObjectSchema>>();

/**
 * An endpoint's schema without those of its fields that the body lacks and that mean nothing then. It finds the same in the body as the whole schema, which spends most of its time
 * on the fifty fields that are not there.
 */
export function fieldsAtHand<const Schema extends v.GenericSchema>(schema: Schema, body: object): Schema {
  if (!isObjectSchema(schema)) return schema;
  let forms = formsOf.get(schema);
  if (forms === undefined) {
    forms = new Map();
    formsOf.set(schema, forms);
  }
  const { entries } = schema;
  let form = '';
  for (const name in body) if (Object.hasOwn(entries, name)) form += `${name} `;
  let atHand = forms.get(form);
  if (atHand === undefined) {
    const names = Object.keys(entries).filter((name) => name in body || !isIdle(entries[name]!));
    atHand = v.pick(schema, names as [string, ...string[]]) as ObjectSchema;
    if (forms.size >= MAX_FORMS) forms.clear();
    forms.set(form, atHand);
  }
  return atHand as v.GenericSchema as Schema;
}

function isObjectSchema(schema: v.GenericSchema): schema is ObjectSchema {
  return schema.type === 'object' && 'entries' in schema && !('pipe' in schema);
}

/** A field that may be left out and has no value then. */
function isIdle(entry: v.ObjectEntries[string]): boolean {
  const mayBeLeftOut = entry.type === 'optional' || entry.type === 'nullish' || entry.type === 'exact_optional';
  return mayBeLeftOut && (entry as { default?: unknown }).default === undefined && !('fallback' in entry);
}
