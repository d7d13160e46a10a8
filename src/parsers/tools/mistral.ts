import { JsonValueScanner } from '../json-value-scanner.ts';
import { TagSplitter } from '../tag-splitter.ts';
import { JsonListParser } from './json-list-parser.ts';
import type { ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/**
 * Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]` up to tokenizer version 7, `[TOOL_CALLS]NAME{…}` for each call from version 11 on,
 * in version 13 with `[CALL_ID]ID[ARGS]` between name and arguments.
 */
export const mistral: ToolFormat = {
  keepsSpecialTokens: true,
  create: (sink) => new MistralToolParser(sink),
  newCallId: newMistralCallId,
};

const MARK = '[TOOL_CALLS]';
const CALL_ID = '[CALL_ID]';
const STARTS = new TagSplitter([MARK]);
const NAME_ENDS = new TagSplitter(['{', '[ARGS]', CALL_ID, MARK]);
const ID_ENDS = new TagSplitter(['[ARGS]', '{']);

const ID_CHARACTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';

/** Mistral's templates take ids of nine letters and digits only. */
function newMistralCallId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return Array.from(bytes, (byte) => ID_CHARACTERS[byte % ID_CHARACTERS.length]).join('');
}

type State = 'content' | 'begin' | 'list' | 'name' | 'id' | 'arguments';

class MistralToolParser implements ToolParser {
  #state: State = 'content';
  #pending = '';
  /** Read since the mark, told as nothing. */
  #raw = '';
  #name = '';
  #id = '';
  #value = new JsonValueScanner();
  /** The arguments have begun. */
  #hasArguments = false;
  #list: JsonListParser | null = null;

  constructor(private readonly sink: ToolSink) {}

  push(text: string): void {
    this.#pending += text;
    while (this.#step());
  }

  finish(): void {
    const text = this.#raw + this.#pending;
    if (this.#list !== null) this.#list.finish();
    else if (this.#state === 'arguments' && !this.#hasArguments && text.trim() === '') this.sink.arguments('{}');
    else if (text !== '') this.sink.content(text);
  }

  /** @returns whether there may be more */
  #step(): boolean {
    switch (this.#state) {
      case 'content':
        return this.#readContent();
      case 'begin':
        return this.#readBegin();
      case 'list':
        this.#list!.push(this.#takePending());
        return false;
      case 'name':
        return this.#readName();
      case 'id':
        return this.#readId();
      default:
        return this.#readArguments();
    }
  }

  #takePending(): string {
    const text = this.#pending;
    this.#pending = '';
    return text;
  }

  #readContent(): boolean {
    const { before, tag, rest } = STARTS.split(this.#pending);
    if (before !== '') this.sink.content(before);
    this.#pending = rest;
    if (tag === null) return false;
    this.#raw = tag;
    this.#state = 'begin';
    return true;
  }

  #readBegin(): boolean {
    const text = this.#pending.trimStart();
    this.#raw += this.#pending.slice(0, this.#pending.length - text.length);
    this.#pending = text;
    if (text === '') return false;
    if (text[0] === '[') {
      this.#list = new JsonListParser(this.sink, ['arguments'], this.#raw, 'empty');
      this.#state = 'list';
    } else this.#state = 'name';
    this.#name = '';
    this.#id = '';
    return true;
  }

  #readName(): boolean {
    const { before, tag, rest } = NAME_ENDS.split(this.#pending);
    this.#name += before;
    this.#raw += before;
    this.#pending = rest;
    if (tag === null) return false;
    if (this.#name.trim() === '' || tag === MARK) this.#giveUp(tag);
    else if (tag === CALL_ID) {
      this.#raw += tag;
      this.#state = 'id';
    } else this.#startCall(tag);
    return true;
  }

  #readId(): boolean {
    const { before, tag, rest } = ID_ENDS.split(this.#pending);
    this.#id += before;
    this.#raw += before;
    this.#pending = rest;
    if (tag === null) return false;
    this.#startCall(tag);
    return true;
  }

  #startCall(tag: string): void {
    const id = this.#id.trim();
    this.sink.startCall(this.#name.trim(), id === '' ? undefined : id);
    this.#raw = '';
    this.#value = new JsonValueScanner();
    this.#state = 'arguments';
    this.#hasArguments = tag === '{';
    if (tag !== '{') return;
    this.#value.scan(tag, 0);
    this.sink.arguments(tag);
  }

  #readArguments(): boolean {
    if (!this.#hasArguments && !this.#beginArguments()) return this.#state === 'content';
    const text = this.#takePending();
    const end = this.#value.scan(text, 0);
    this.sink.arguments(text.slice(0, end));
    this.#pending = text.slice(end);
    if (!this.#value.isDone) return false;
    this.#state = 'content';
    return true;
  }

  /** White space, then a value or the next call. @returns whether there is a value */
  #beginArguments(): boolean {
    const text = this.#pending.trimStart();
    this.#pending = text;
    if (text.startsWith(MARK)) {
      this.sink.arguments('{}');
      this.#state = 'content';
    } else this.#hasArguments = text !== '' && !MARK.startsWith(text);
    return this.#hasArguments;
  }

  /** What began with the mark is content. */
  #giveUp(tag: string): void {
    const isMark = tag === MARK;
    this.sink.content(isMark ? this.#raw : this.#raw + tag);
    this.#raw = isMark ? tag : '';
    this.#state = isMark ? 'begin' : 'content';
  }
}
