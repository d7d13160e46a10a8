import { joined } from '../flat-text.ts';

/** Characters up to which a text counts as a token's. */
const MAX_LENGTH = 32;
/** More than the vocabularies that are in use at once have in common words. */
const MAX_ENTRIES = 1 << 16;

/** JSON of pieces of output with what comes behind it, remembered for short ones: a stream's chunks are mostly single tokens, and the same ones again and again. */
export class JsonTexts {
  private readonly known = new Map<string, string>();

  constructor(private readonly tail: string) {}

  of(text: string): string {
    if (text.length > MAX_LENGTH) return JSON.stringify(text) + this.tail;
    let json = this.known.get(text);
    if (json === undefined) {
      json = joined(JSON.stringify(text), this.tail);
      if (this.known.size >= MAX_ENTRIES) this.known.clear();
      this.known.set(text, json);
    }
    return json;
  }
}

const bare = new JsonTexts('');

/** `JSON.stringify` of a piece of output, remembered for short ones. */
export function jsonText(text: string): string {
  return bare.of(text);
}
