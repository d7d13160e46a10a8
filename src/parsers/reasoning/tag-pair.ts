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
  /**
   * An answer without a start tag in front: reasoning up to the end tag (`always`), or content unless the prompt ends with the start tag
   * (`marked`), or up to any further on, also behind other reasoning (`anywhere`).
   */
  begins: 'always' | 'marked' | 'anywhere';
  /** A start tag within the reasoning and an end tag behind it are left out. */
  dropsStrayTags?: boolean;
  keepsSpecialTokens?: boolean;
  /** Whether the request's template variables switch the reasoning off. */
  isOff?(templateKwargs: Readonly<Record<string, unknown>>): boolean;
}

/** Reasoning between two tags, in front of everything else. */
export function tagPairFormat(options: TagPairOptions): ReasoningFormat {
  const { starts, ends, alsoEnd = [], begins, dropsStrayTags = false } = options;
  const start = (context: ReasoningContext) => startOf(options, context);
  const outside = [...(dropsStrayTags ? ends : []), ...(begins === 'anywhere' ? starts : [])];
  const splitters = {
    inside: new TagSplitter([...ends, ...alsoEnd, ...(dropsStrayTags ? starts : [])]),
    outside: outside.length === 0 ? null : new TagSplitter([...outside, ...alsoEnd]),
  };
  return {
    marks: { starts, ends, alsoEnd, start },
    keepsSpecialTokens: options.keepsSpecialTokens,
    create: (sink, context) => new TagPairParser(sink, start(context), options, splitters),
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

interface Splitters {
  /** What ends the reasoning, and what is left out of it. */
  inside: TagSplitter;
  /** What begins it again, what is left out of the content, and what begins a call, which is left as it is. */
  outside: TagSplitter | null;
}

class TagPairParser implements ReasoningParser {
  /** White space in front of what may be the start tag; it goes with the tag. */
  #lead = '';
  /** Text that may be, or begin, a tag. */
  #held = '';

  constructor(
    private readonly sink: ReasoningSink,
    private state: ReasoningStart | 'started' | 'content',
    private readonly tags: TagPairOptions,
    private readonly splitters: Splitters,
  ) {}

  push(text: string): void {
    if (this.state === 'over') {
      this.sink.content(text);
      return;
    }
    this.#held += text;
    if (this.state === 'inside' || this.state === 'marked') this.#skipStart();
    while (this.#step());
  }

  finish(): void {
    const text = this.#lead + this.#held;
    if (text === '') return;
    if (this.state === 'inside' || this.state === 'started') this.sink.reasoning(text);
    else this.sink.content(text);
  }

  /** @returns whether there may be more */
  #step(): boolean {
    if (this.state === 'started') return this.#readReasoning();
    return this.state === 'content' && this.#readContent();
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
    }
    this.#lead = '';
    if (start !== undefined || this.state === 'inside') this.state = 'started';
    else if (this.tags.begins === 'anywhere') this.state = 'content';
    else this.#endParsing();
  }

  #readReasoning(): boolean {
    const { before, tag, rest } = this.splitters.inside.split(this.#held);
    if (before !== '') this.sink.reasoning(before);
    this.#held = rest;
    if (tag === null) return false;
    const { starts, ends } = this.tags;
    if (starts.includes(tag)) return true;
    if (ends.includes(tag) && this.splitters.outside !== null) this.state = 'content';
    else {
      if (!ends.includes(tag)) this.#held = tag + rest;
      this.#endParsing();
    }
    return true;
  }

  #readContent(): boolean {
    const { before, tag, rest } = this.splitters.outside!.split(this.#held);
    if (before !== '') this.sink.content(before);
    this.#held = rest;
    if (tag === null) return false;
    const { starts, alsoEnd = [] } = this.tags;
    if (starts.includes(tag)) this.state = 'started';
    else if (alsoEnd.includes(tag)) {
      this.#held = tag + rest;
      this.#endParsing();
    }
    return true;
  }

  /** What follows is content. */
  #endParsing(): void {
    this.state = 'over';
    if (this.#held !== '') this.sink.content(this.#held);
    this.#held = '';
  }
}
