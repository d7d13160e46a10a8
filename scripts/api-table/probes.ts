import type { Body } from '../../test/api-fields/field-case.ts';
import { FIELD_CASES } from '../../test/api-fields/registry.ts';

/** What the table asks the server, to see what becomes of the fields that are not known to work: values that ask for something, never a default. */

/** By field, or `Schema.field` where a field means different things. */
const VALUES: Readonly<Record<string, unknown>> = {
  previous_input_messages: [{ role: 'user' }],
  'AnthropicMessagesRequest.metadata': { user_id: 'somebody' },
  service_tier: 'auto',
  mm_payload: 'none',
  prompt_embeds: 'AAAA',
  prompt: { id: 'a template' },
  suffix: 'and so on',
  user: 'somebody',
  session_id: 'one',
  prompt_cache_key: 'key',
  _backend: 'guidance',
  return_mm_kwargs: true,
};

/** Objects for what the server does not have. */
const OBJECTS = /_kwargs$|_params$/;
const NUMBERS = /^(max_|routed_)/;

/** Fields within an object of which something else must be there. */
const COMPANIONS: Readonly<Record<string, Body>> = {
  StructuredOutputsParams: { structured_outputs: { choice: ['yes', 'no'] } },
};

/** The request that shows what becomes of a field. Throws Error for a schema that is not known. */
export function probe(schema: string, field: string): { path: string; body: Body } {
  const place = FIELD_CASES[schema]?.place;
  if (place === undefined) throw new Error(`test/api-fields does not know where ${schema} goes`);
  const body: Body = { ...place.base, ...COMPANIONS[schema] };
  const fields = { [field]: VALUES[`${schema}.${field}`] ?? VALUES[field] ?? guess(field) };
  return { path: place.path, body: { ...body, ...(place.nest?.(fields, body) ?? fields) } };
}

function guess(field: string): unknown {
  if (OBJECTS.test(field)) return { key: 'value' };
  return NUMBERS.test(field) ? 2 : true;
}
