export interface StopCheckerOptions {
  /** Not empty strings. */
  stop: readonly string[];
  includeStopStrInOutput: boolean;
  /** Stop strings that end within the text of the first `minTokens` tokens do not count. */
  minTokens: number;
}

export interface CheckedText {
  /** What may be sent. */
  text: string;
  /** The stop string that was found; no more text follows. */
  stop: string | null;
}

/**
 * Looks for stop strings in a text that comes in pieces, across their borders, and holds back what may be the beginning of one
 * (at most the longest stop string less one character). Among several that end in the same piece the one listed first wins, as in vLLM;
 * give it one token's text at a time, so that the result does not depend on how many tokens a step brought.
 */
export class StopChecker {
  readonly #maxLength: number;
  /** The end of the text so far: all that is held back and all that a stop string may begin in. */
  #window = '';
  /** How much of the window has been let through. */
  #released = 0;

  constructor(private readonly options: StopCheckerOptions) {
    this.#maxLength = Math.max(0, ...options.stop.map((stop) => stop.length));
  }

  /** Adds the text of a token. `numOutputTokens` counts the request's tokens so far, this one included. */
  append(text: string, numOutputTokens: number): CheckedText {
    if (this.#maxLength === 0) return { text, stop: null };
    this.#window += text;
    if (text !== '' && numOutputTokens > this.options.minTokens) {
      const found = this.#find(text.length);
      if (found !== null) return found;
    }
    const end = this.#window.length - this.#heldBack();
    const released = this.#window.slice(this.#released, end);
    const start = Math.max(0, Math.min(end, this.#window.length - this.#maxLength + 1));
    this.#window = this.#window.slice(start);
    this.#released = end - start;
    return { text: released, stop: null };
  }

  /** What was held back: the text ended without a stop string. */
  flush(): string {
    const rest = this.#window.slice(this.#released);
    this.#window = '';
    this.#released = 0;
    return rest;
  }

  #find(numNewCharacters: number): CheckedText | null {
    for (const stop of this.options.stop) {
      const from = Math.max(0, this.#window.length - numNewCharacters - stop.length + 1);
      const index = this.#window.indexOf(stop, from);
      if (index === -1) continue;
      const end = this.options.includeStopStrInOutput ? index + stop.length : index;
      const text = this.#window.slice(this.#released, end);
      this.#window = '';
      this.#released = 0;
      return { text, stop };
    }
    return null;
  }

  /** Length of the longest end of the text that a stop string begins with. */
  #heldBack(): number {
    if (this.options.includeStopStrInOutput) return 0;
    let held = 0;
    for (const stop of this.options.stop) {
      for (let length = Math.min(stop.length - 1, this.#window.length); length > held; length--) {
        if (this.#window.endsWith(stop.slice(0, length))) held = length;
      }
    }
    return held;
  }
}
