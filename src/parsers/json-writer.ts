/** Text as the inside of a JSON string, piece by piece: a character's two halves in two pieces are still one character. */
class JsonStringEscaper {
  #half = '';

  push(text: string): string {
    const whole = this.#half + text;
    const last = whole.charCodeAt(whole.length - 1);
    const isHalf = last >= 0xd800 && last <= 0xdbff;
    this.#half = isHalf ? whole.slice(-1) : '';
    return JSON.stringify(isHalf ? whole.slice(0, -1) : whole).slice(1, -1);
  }

  finish(): string {
    return JSON.stringify(this.#half).slice(1, -1);
  }
}

/** Writes one JSON value piece by piece, with the spaces that vLLM's (Python's) JSON has. */
export class JsonWriter {
  readonly #isEmpty: boolean[] = [];
  #afterKey = false;
  #string = new JsonStringEscaper();

  constructor(private readonly emit: (json: string) => void) {}

  open(bracket: '{' | '['): void {
    this.#separate();
    this.#isEmpty.push(true);
    this.emit(bracket);
  }

  close(bracket: '}' | ']'): void {
    this.#isEmpty.pop();
    this.emit(bracket);
  }

  key(name: string): void {
    this.#separate();
    this.emit(`${JSON.stringify(name)}: `);
    this.#afterKey = true;
  }

  /** A whole value, as JSON. */
  value(json: string): void {
    this.#separate();
    this.emit(json);
  }

  beginString(): void {
    this.#separate();
    this.#string = new JsonStringEscaper();
    this.emit('"');
  }

  stringPiece(text: string): void {
    const json = this.#string.push(text);
    if (json !== '') this.emit(json);
  }

  endString(): void {
    this.emit(`${this.#string.finish()}"`);
  }

  #separate(): void {
    if (this.#afterKey) {
      this.#afterKey = false;
      return;
    }
    const last = this.#isEmpty.length - 1;
    if (last < 0) return;
    if (!this.#isEmpty[last]) this.emit(', ');
    this.#isEmpty[last] = false;
  }
}
