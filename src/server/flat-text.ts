/**
 * What `+` and templates make is a tree of their pieces until somebody reads it. As a part of other texts it stays one, and each of them walks it again: short ways for what is written often.
 */

/** The pieces in one place, for a text that many others begin with. */
export function joined(...pieces: string[]): string {
  return pieces.join('');
}

/** `text + more`, without a tree where there is no text yet. */
export function append(text: string, more: string): string {
  return text === '' ? more : text + more;
}
