import { TagSplitter } from '../tag-splitter.ts';
import type {
  ReasoningContext,
  ReasoningFormat,
  ReasoningMarks,
  ReasoningParser,
  ReasoningSink,
  ReasoningStart,
} from './reasoning-parser.ts';

export interface TagPairOptions extends ReasoningMarks {
  /** An answer without a start tag: reasoning up to the end tag (`always`), or content unless the prompt ends with the start tag (`marked`). */
  begins: 'always' | 'marked';
  keepsSpecialTokens?: boolean;
  /** Whether the request's template variables switch the reasoning off. */
  isOff?(templateKwargs: Readonly<Record<string, unknown>>): boolean;
}

/** Reasoning between two tags, in front of everything else. */
export function tagPairFormat(options: TagPairOptions): ReasoningFormat {
  const { starts, ends, alsoEnd = [] } = options;
  const start = (context: ReasoningContext) => startOf(options, context);
  const splitter = new TagSplitter([...ends, ...alsoEnd]);
  return {
    marks: { starts, ends, alsoEnd, start },
    keepsSpecialTokens: options.keepsSpecialTokens,
    create: (sink, context) => new TagPairParser(sink, start(context), options, splitter),
  };
}

const PAIR = /^(\S+)\.\.\.(\S+)$/;

/** The format of a pair given as `START...END`, in which only marked reasoning counts; null for another text. */
export function parseTagPair(text: string): ReasoningFormat | null {
  const match = PAIR.exec(text);
  return match === null ? null : tagPairFormat({ starts: [match[1]!], ends: [match[2]!], begins: 'marked' });
}

function startOf({ starts, ends, begins, isOff }: TagPairOptions, context: ReasoningContext): ReasoningStart {
  const prompt = context.promptText.trimEnd();
  if (isOff?.(context.templateKwargs) || ends.some((end) => prompt.endsWith(end))) return 'over';
  return begins === 'always' || starts.some((start) => prompt.endsWith(start)) ? 'inside' : 'marked';
}

class TagPairParser implements ReasoningParser {
  /** White space in front of what may be the start tag; it goes with the tag. */
  #lead = '';
  /** Text that may be, or begin, a tag. */
  #held = '';

  constructor(
    private readonly sink: ReasoningSink,
    private state: ReasoningStart | 'started',
    private readonly tags: ReasoningMarks,
    private readonly splitter: TagSplitter,
  ) {}

  push(text: string): void {
    if (this.state === 'over') {
      this.sink.content(text);
      return;
    }
    this.#held += text;
    if (this.state !== 'started') this.#skipStart();
    if (this.state === 'started') this.#readReasoning();
  }

  finish(): void {
    const text = this.#lead + this.#held;
    if (text === '') return;
    if (this.state === 'marked') this.sink.content(text);
    else this.sink.reasoning(text);
  }

  #skipStart(): void {
    const text = this.#held.trimStart();
    this.#lead += this.#held.slice(0, this.#held.length - text.length);
    this.#held = text;
    const { starts } = this.tags;
    const start = starts.find((tag) => text.startsWith(tag));
    if (start !== undefined) {
      this.#held = text.slice(start.length);
    } else {
      if (starts.some((tag) => tag.startsWith(text))) return;
      this.#held = this.#lead + text;
      if (this.state === 'marked') {
        this.#passContent(this.#held);
        return;
      }
    }
    this.#lead = '';
    this.state = 'started';
  }

  #readReasoning(): void {
    const { before, tag, rest } = this.splitter.split(this.#held);
    if (before !== '') this.sink.reasoning(before);
    if (tag === null) this.#held = rest;
    else this.#passContent(this.tags.ends.includes(tag) ? rest : tag + rest);
  }

  #passContent(text: string): void {
    this.state = 'over';
    this.#held = '';
    this.#lead = '';
    if (text !== '') this.sink.content(text);
  }
}
