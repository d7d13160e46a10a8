import { TagSplitter } from '../tag-splitter.ts';
import type {
  ReasoningContext,
  ReasoningFormat,
  ReasoningMarks,
  ReasoningParser,
  ReasoningSink,
} from './reasoning-parser.ts';

export interface TagPairOptions extends ReasoningMarks {
  /** An answer without the start tag: reasoning up to the end tag (`always`), or content unless the prompt ends with the start tag (`marked`). */
  begins: 'always' | 'marked';
  keepsSpecialTokens?: boolean;
  /** Whether the request's template variables switch the reasoning off. */
  isOff?(templateKwargs: Readonly<Record<string, unknown>>): boolean;
}

/** Reasoning between two tags, in front of everything else. */
export function tagPairFormat(options: TagPairOptions): ReasoningFormat {
  const { start, end, alsoEnd = [] } = options;
  return {
    marks: { start, end, alsoEnd },
    keepsSpecialTokens: options.keepsSpecialTokens,
    create: (sink, context) => new TagPairParser(sink, initialState(options, context), options),
  };
}

type State = 'content' | 'start-or-reasoning' | 'start-or-content' | 'reasoning';

function initialState({ start, end, begins, isOff }: TagPairOptions, context: ReasoningContext): State {
  const prompt = context.promptText.trimEnd();
  if (prompt.endsWith(end) || isOff?.(context.templateKwargs)) return 'content';
  return begins === 'always' || prompt.endsWith(start) ? 'start-or-reasoning' : 'start-or-content';
}

class TagPairParser implements ReasoningParser {
  /** Text that may be, or begin, a tag. */
  #held = '';
  readonly #ends: TagSplitter;

  constructor(
    private readonly sink: ReasoningSink,
    private state: State,
    private readonly tags: ReasoningMarks,
  ) {
    this.#ends = new TagSplitter([tags.end, ...(tags.alsoEnd ?? [])]);
  }

  push(text: string): void {
    if (this.state === 'content') {
      this.sink.content(text);
      return;
    }
    this.#held += text;
    if (this.state !== 'reasoning') this.#skipStart();
    if (this.state === 'reasoning') this.#readReasoning();
  }

  finish(): void {
    if (this.#held === '') return;
    if (this.state === 'start-or-content') this.sink.content(this.#held);
    else this.sink.reasoning(this.#held);
    this.#held = '';
  }

  /** White space in front of the start tag goes with it. */
  #skipStart(): void {
    const { start } = this.tags;
    const text = this.#held.trimStart();
    if (text.startsWith(start)) {
      this.#held = text.slice(start.length);
      this.state = 'reasoning';
    } else if (!start.startsWith(text)) {
      if (this.state === 'start-or-reasoning') this.state = 'reasoning';
      else this.#passContent(this.#held);
    }
  }

  #readReasoning(): void {
    const { before, tag, rest } = this.#ends.split(this.#held);
    if (before !== '') this.sink.reasoning(before);
    if (tag === null) this.#held = rest;
    else this.#passContent(tag === this.tags.end ? rest : tag + rest);
  }

  #passContent(text: string): void {
    this.state = 'content';
    this.#held = '';
    if (text !== '') this.sink.content(text);
  }
}
