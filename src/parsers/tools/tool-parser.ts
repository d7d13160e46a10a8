/** A function that the model may call. */
export interface FunctionDefinition {
  name: string;
  /** JSON Schema of its arguments. */
  parameters: Readonly<Record<string, unknown>> | null;
}

/** Where a tool parser tells what it has found. Arguments belong to the call that was started last. */
export interface ToolSink {
  content(text: string): void;
  startCall(name: string, id?: string): void;
  arguments(json: string): void;
}

/**
 * Finds tool calls in one answer's text, which comes in pieces cut anywhere. However it is cut, the same calls are told; text that is no call of
 * the format is content, and nothing is ever thrown. A call is told as soon as its name is known and its arguments have begun: what goes wrong
 * from then on leaves arguments that are not JSON.
 */
export interface ToolParser {
  push(text: string): void;
  /** Nothing follows. */
  finish(): void;
}

/** A format in which models write tool calls: a value of `--tool-call-parser`. */
export interface ToolFormat {
  /** `functions`: those of the request, for formats that don't say whether a value is text or a number. */
  create(sink: ToolSink, functions: readonly FunctionDefinition[]): ToolParser;
  /** The format's marks are special tokens, which must stay in the text. */
  keepsSpecialTokens?: boolean;
  /**
   * The text around one call's arguments, where these are JSON: a call that the client has forced is written as the model was trained to.
   * Formats without it have forced calls as plain JSON.
   */
  frame?(name: string): { begin: string; end: string };
  /** Ids for calls where the model's templates ask for a form of their own. */
  newCallId?(): string;
}
