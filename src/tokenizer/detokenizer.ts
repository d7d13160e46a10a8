import { leadingSpaces } from './base-tokenizer.ts';
import type { Tokenizer } from './tokenizer.ts';

export interface DetokenizerOptions {
  skipSpecialTokens: boolean;
  /** False: no space is put between special tokens that follow each other, where the vocabulary's decoder would. */
  spacesBetweenSpecialTokens: boolean;
  /** The tokens before, so that the first word keeps the space it has in the middle of a text. Default none. */
  promptTokenIds?: ArrayLike<number>;
}

/** Turns one request's token ids into text as they come. Work and memory are linear in the number of tokens. */
export interface IncrementalDetokenizer {
  /** The text that is final with these tokens: whole characters only. Unknown ids have no text. */
  push(tokenIds: readonly number[]): string;
  /** What was held back, an incomplete character as U+FFFD. Nothing may be pushed after it. All texts joined equal `Tokenizer.decode` of all ids. */
  finish(): string;
}

/** The fastest detokenizer that is right for the tokenizer's vocabulary. */
export function createDetokenizer(tokenizer: Tokenizer, options: DetokenizerOptions): IncrementalDetokenizer {
  const strip = tokenizer.byteDecoding;
  if (strip === null || strip === undefined) return new WindowDetokenizer(tokenizer, options);
  return new ByteDetokenizer(tokenizer, options, strip.stripStart);
}

/** For vocabularies where text is the tokens' bytes joined: a streaming UTF-8 decoder holds back what is not a whole character yet. */
class ByteDetokenizer implements IncrementalDetokenizer {
  /** Most answers never need one. */
  #decoder: TextDecoder | null = null;
  readonly #whole: WholeTexts;
  /** The decoder surely holds nothing back. */
  #isClean = true;
  /** Spaces that may still be cut off; 0 as soon as something else came. */
  #strip: number;

  constructor(
    private readonly tokenizer: Tokenizer,
    options: DetokenizerOptions,
    stripStart: number,
  ) {
    const prompt = visibleTail(tokenizer, options, 1);
    this.#strip = prompt.length > 0 ? 0 : stripStart;
    this.#whole = WholeTexts.of(tokenizer, options.skipSpecialTokens);
  }

  push(tokenIds: readonly number[]): string {
    let text = '';
    for (const id of tokenIds) {
      const added = this.#decode(id);
      // The text of a single token stays what it is: a string that others have seen is compared by its address.
      text = text === '' ? added : text + added;
    }
    return this.#strip === 0 ? text : this.#stripStart(text);
  }

  /** Most tokens are whole characters, whose text is known; only the others go through the decoder. */
  #decode(id: number): string {
    const whole = this.#whole.get(id);
    if (whole !== null && (this.#isClean || whole === '')) return whole;
    const bytes = this.tokenizer.tokenBytes(id);
    if (bytes === null) return '';
    // Whole characters end whatever was held back before them.
    this.#isClean = whole !== null;
    this.#decoder ??= new TextDecoder('utf-8', { ignoreBOM: true });
    return this.#decoder.decode(bytes, { stream: true });
  }

  finish(): string {
    return this.#stripStart(this.#decoder?.decode() ?? '');
  }

  #stripStart(text: string): string {
    if (this.#strip === 0 || text === '') return text;
    const count = leadingSpaces(text, this.#strip);
    this.#strip = count === text.length ? this.#strip - count : 0;
    return text.slice(count);
  }
}

/** Texts of the tokens whose bytes are whole characters, found when they are first asked for. A special token that is skipped has an empty one. */
class WholeTexts {
  private static readonly known = new WeakMap<Tokenizer, { all: WholeTexts; visible: WholeTexts }>();
  private static readonly decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  private readonly texts: (string | null | undefined)[] = [];

  private constructor(
    private readonly tokenizer: Tokenizer,
    private readonly skipsSpecialTokens: boolean,
  ) {}

  static of(tokenizer: Tokenizer, skipsSpecialTokens: boolean): WholeTexts {
    let both = WholeTexts.known.get(tokenizer);
    if (both === undefined) {
      both = { all: new WholeTexts(tokenizer, false), visible: new WholeTexts(tokenizer, true) };
      WholeTexts.known.set(tokenizer, both);
    }
    return skipsSpecialTokens ? both.visible : both.all;
  }

  /** null for a token that begins or ends inside a character, and for an unknown id. */
  get(id: number): string | null {
    let text = this.texts[id];
    if (text === undefined) {
      text = this.find(id);
      if (text !== undefined) this.texts[id] = text;
    }
    return text ?? null;
  }

  private find(id: number): string | null | undefined {
    if (this.skipsSpecialTokens && this.tokenizer.specialTokenIds.has(id)) return '';
    const bytes = this.tokenizer.tokenBytes(id);
    if (bytes === null) return undefined;
    try {
      return WholeTexts.decoder.decode(bytes);
    } catch {
      return null;
    }
  }
}

const REPLACEMENT_CHARACTER = '\uFFFD';
/** Tokens of the prompt that the first window starts with. */
const PROMPT_WINDOW = 5;
/** A text that ends in U+FFFD for longer than any character is, is broken for good. */
const MAX_CHARACTER_TOKENS = 4;

/**
 * For the other decoders (WordPiece, BPE with word suffixes, …): decodes the window since the last but one emission with and without the
 * new tokens; the difference is new text. The method of text-generation-inference and vLLM (`prefix_offset`, `read_offset`).
 */
class WindowDetokenizer implements IncrementalDetokenizer {
  /** The window's tokens. */
  #ids: number[];
  /** How many of them have been emitted. */
  #read: number;
  #lastWasSpecial = false;

  constructor(
    private readonly tokenizer: Tokenizer,
    private readonly options: DetokenizerOptions,
  ) {
    this.#ids = visibleTail(tokenizer, options, PROMPT_WINDOW);
    this.#read = this.#ids.length;
  }

  push(tokenIds: readonly number[]): string {
    let text = '';
    for (const id of tokenIds) text += this.#next(id);
    return text;
  }

  finish(): string {
    return this.#emit(this.#decode(this.#ids));
  }

  #next(id: number): string {
    const isSpecial = this.tokenizer.specialTokenIds.has(id);
    // A skipped token must not enter the window: it would be the "first token" that loses its space.
    if (isSpecial && this.options.skipSpecialTokens) return '';
    const joined = isSpecial && this.#lastWasSpecial && !this.options.spacesBetweenSpecialTokens;
    this.#lastWasSpecial = isSpecial;
    if (this.tokenizer.idToToken(id) === null) return '';
    this.#ids.push(id);
    const text = this.#decode(this.#ids);
    if (text.endsWith(REPLACEMENT_CHARACTER) && this.#ids.length - this.#read < MAX_CHARACTER_TOKENS) return '';
    const added = this.#emit(text);
    return joined ? added.trimStart() : added;
  }

  /** The part of the window's text that is new; the window then starts where the new part does. */
  #emit(text: string): string {
    const before = this.#decode(this.#ids.slice(0, this.#read));
    this.#ids = this.#ids.slice(this.#read);
    this.#read = this.#ids.length;
    return text.slice(before.length);
  }

  #decode(ids: number[]): string {
    return ids.length === 0 ? '' : this.tokenizer.decode(ids, { skipSpecialTokens: false });
  }
}

/** The last `count` tokens of the prompt that have text. */
function visibleTail(tokenizer: Tokenizer, options: DetokenizerOptions, count: number): number[] {
  const prompt = options.promptTokenIds ?? [];
  const tail: number[] = [];
  for (let i = prompt.length - 1; i >= 0 && tail.length < count; i--) {
    const id = prompt[i]!;
    if (options.skipSpecialTokens && tokenizer.specialTokenIds.has(id)) continue;
    if (tokenizer.idToToken(id) !== null) tail.push(id);
  }
  return tail.reverse();
}
