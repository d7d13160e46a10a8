import { JsonCallList } from '../json-call-list.ts';
import type { ToolParser, ToolSink } from './tool-parser.ts';

/** Reads one array of calls from its `[` on, and takes what follows for content. Formats begin it at different marks. */
export class JsonListParser implements ToolParser {
  readonly #list: JsonCallList;
  /** Text in front of the array, which goes with it once a call was told. */
  #mark: string;
  #isOver = false;

  constructor(
    private readonly sink: ToolSink,
    argumentKeys: readonly string[],
    mark: string,
    withoutArguments: 'refuse' | 'empty' = 'refuse',
  ) {
    this.#mark = mark;
    this.#list = new JsonCallList(
      {
        content: (text) => sink.content(text),
        startCall: (name) => {
          this.#mark = '';
          sink.startCall(name);
        },
        arguments: (json) => sink.arguments(json),
      },
      argumentKeys,
      withoutArguments,
    );
  }

  /** The array has ended as it should: what is told from now on is behind it. */
  get isDone(): boolean {
    return this.#list.isDone;
  }

  push(text: string): void {
    let rest = text;
    if (!this.#isOver) {
      rest = text.slice(this.#list.push(text, 0));
      if (this.#list.isMalformed) rest = this.#mark + this.#list.raw + rest;
      this.#isOver = this.#list.isMalformed || this.#list.isDone;
      if (!this.#isOver) return;
    }
    if (rest !== '') this.sink.content(rest);
  }

  finish(): void {
    if (this.#isOver) return;
    const text = this.#mark + this.#list.raw;
    if (text !== '') this.sink.content(text);
  }
}
