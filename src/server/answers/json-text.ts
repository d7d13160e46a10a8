/** Characters up to which a text counts as a token's. */
const MAX_LENGTH = 32;
/** More than the vocabularies that are in use at once have in common words. */
const MAX_ENTRIES = 1 << 16;

const known = new Map<string, string>();

/** `JSON.stringify` of a piece of output, remembered for short ones: a stream's chunks are mostly single tokens, and the same ones again and again. */
export function jsonText(text: string): string {
  if (text.length > MAX_LENGTH) return JSON.stringify(text);
  let json = known.get(text);
  if (json === undefined) {
    json = JSON.stringify(text);
    if (known.size >= MAX_ENTRIES) known.clear();
    known.set(text, json);
  }
  return json;
}
