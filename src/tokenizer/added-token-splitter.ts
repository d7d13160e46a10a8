import type { AddedTokenConfig } from './tokenizer-files.ts';

/** Finds added tokens in texts: of those that begin at a place the longest, and what is found first counts. */
export class AddedTokenSplitter {
  readonly #ids: ReadonlyMap<string, number>;
  /** Lengths of tokens, longest first, with the characters that those of a length end with: a few, of whatever many tokens. */
  readonly #lengths: readonly (readonly [length: number, ends: ReadonlySet<number>])[];
  /** The characters that tokens begin with; null: there are no tokens. */
  readonly #starts: RegExp | null;

  constructor(tokens: readonly AddedTokenConfig[]) {
    const given = tokens.filter(({ content }) => content !== '');
    this.#ids = new Map(given.map(({ content, id }) => [content, id]));
    const byLength = Map.groupBy(given, ({ content }) => content.length);
    this.#lengths = [...byLength]
      .map(
        ([length, tokens]) => [length, new Set(tokens.map(({ content }) => content.charCodeAt(length - 1)))] as const,
      )
      .sort(([a], [b]) => b - a);
    const units = [...new Set(given.map(({ content }) => content.charCodeAt(0)))];
    const escaped = units.map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`);
    this.#starts = units.length === 0 ? null : new RegExp(`[${escaped.join('')}]`, 'g');
  }

  /** Calls back for each piece of the text in order: the text between tokens (never empty), and the tokens' ids. */
  split(text: string, onText: (piece: string) => void, onToken: (id: number) => void): void {
    let start = 0;
    for (let at = this.#nextStart(text, 0); at >= 0; ) {
      const length = this.#tokenLengthAt(text, at);
      if (length === 0) {
        at = this.#nextStart(text, at + 1);
        continue;
      }
      if (at > start) onText(text.slice(start, at));
      onToken(this.#ids.get(text.slice(at, at + length))!);
      start = at + length;
      at = this.#nextStart(text, start);
    }
    if (start < text.length) onText(text.slice(start));
  }

  #nextStart(text: string, from: number): number {
    if (this.#starts === null) return -1;
    this.#starts.lastIndex = from;
    return this.#starts.test(text) ? this.#starts.lastIndex - 1 : -1;
  }

  /** 0: no token begins there. */
  #tokenLengthAt(text: string, at: number): number {
    for (const [length, ends] of this.#lengths) {
      if (ends.has(text.charCodeAt(at + length - 1)) && this.#ids.has(text.slice(at, at + length))) return length;
    }
    return 0;
  }
}
