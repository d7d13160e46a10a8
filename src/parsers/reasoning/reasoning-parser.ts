/** Where a reasoning parser tells what it has found. Content may still hold tool calls. */
export interface ReasoningSink {
  reasoning(text: string): void;
  content(text: string): void;
}

/** Parts one answer's text, which comes in pieces cut anywhere, into reasoning and the rest. Nothing is ever thrown. */
export interface ReasoningParser {
  push(text: string): void;
  /** Nothing follows. */
  finish(): void;
}

/** What the request says about its answer's reasoning. */
export interface ReasoningContext {
  /** The prompt as text: templates begin the reasoning, or leave it out by ending it at once. */
  readonly promptText: string;
  /** Variables of the chat template. */
  readonly templateKwargs: Readonly<Record<string, unknown>>;
}

/** A format in which models write down what they think: a value of `--reasoning-parser`. */
export interface ReasoningFormat {
  create(sink: ReasoningSink, context: ReasoningContext): ReasoningParser;
  /** The format's marks are special tokens, which must stay in the text. */
  keepsSpecialTokens?: boolean;
  /** The marks around the reasoning where it has such, for counting its tokens. */
  marks?: ReasoningMarks & { start(context: ReasoningContext): ReasoningStart };
}

/** Where an answer starts: behind the reasoning, in it (a start mark is passed over), or where only a start mark begins it. */
export type ReasoningStart = 'over' | 'inside' | 'marked';

export interface ReasoningMarks {
  starts: readonly string[];
  ends: readonly string[];
  /** Marks that end the reasoning although they belong to what follows. */
  alsoEnd?: readonly string[];
}
