/**
 * What `+` and templates make is a tree of their pieces until somebody reads it. As a part of another text it stays one, so that each text that has it walks through it again.
 */

/** The pieces in one place: for a text that many others begin with. */
export function joined(...pieces: string[]): string {
  return pieces.join('');
}

/** `text + more`, without a tree where there is no text yet. */
export function append(text: string, more: string): string {
  return text === '' ? more : text + more;
}
