import * as v from 'valibot';

type JsonSchema = Readonly<Record<string, unknown>>;

/** Why fields about images and sounds change nothing: content parts of that kind are refused themselves. */
export const MULTIMODAL = 'models read text only';

const KEY = 'jsonSchema';

/** What a schema or action means in JSON Schema, where that does not follow from it. */
export function describedAs<Input>(jsonSchema: JsonSchema): v.MetadataAction<Input, { jsonSchema: JsonSchema }> {
  return v.metadata({ [KEY]: jsonSchema });
}

/** A field that is checked and then changes nothing; `why` is for the API's documentation. */
export function withoutEffect<const Schema extends v.GenericSchema>(schema: Schema, why: string) {
  return v.pipe(
    schema,
    describedAs<v.InferOutput<Schema>>({ 'x-effect': 'none', description: `Without effect: ${why}.` }),
  );
}

/** What `describedAs` has attached; null for anything else. */
export function jsonSchemaOf(action: unknown): JsonSchema | null {
  if (typeof action !== 'object' || action === null || !('metadata' in action)) return null;
  const { metadata } = action;
  if (typeof metadata !== 'object' || metadata === null || !(KEY in metadata)) return null;
  return metadata[KEY] as JsonSchema;
}
