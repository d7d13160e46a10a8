export interface SplitText {
  /** Text in front of the tag; without a tag, all that can't be the beginning of one. */
  before: string;
  /** null: there is none yet. */
  tag: string | null;
  /** What follows the tag; without a tag, what may be the beginning of one and must be shown again with more text behind it. */
  rest: string;
}

/** Finds the first of some tags in text that comes in pieces. Work is linear in the text. */
export class TagSplitter {
  readonly #pattern: RegExp;
  readonly #prefixes: string[];

  constructor(readonly tags: readonly string[]) {
    const longestFirst = [...tags].sort((a, b) => b.length - a.length);
    this.#pattern = new RegExp(longestFirst.map((tag) => RegExp.escape(tag)).join('|'));
    const prefixes = new Set(tags.flatMap((tag) => Array.from(tag, (_, i) => tag.slice(0, i)).slice(1)));
    this.#prefixes = [...prefixes].sort((a, b) => b.length - a.length);
  }

  split(text: string): SplitText {
    const match = this.#pattern.exec(text);
    if (match !== null) {
      const [tag] = match;
      return { before: text.slice(0, match.index), tag, rest: text.slice(match.index + tag.length) };
    }
    const held = this.#prefixes.find((prefix) => text.endsWith(prefix))?.length ?? 0;
    return { before: text.slice(0, text.length - held), tag: null, rest: text.slice(text.length - held) };
  }
}
