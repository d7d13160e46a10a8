import { JsonWriter } from '../json-writer.ts';
import { schemaTypes, valueToJson } from '../schema-value.ts';
import { TagSplitter } from '../tag-splitter.ts';
import type { FunctionDefinition, ToolFormat, ToolParser, ToolSink } from './tool-parser.ts';

/**
 * Qwen3-Coder: `<tool_call><function=NAME><parameter=KEY>VALUE</parameter>…</function></tool_call>`, with line breaks around the parts.
 * Whether a value is text or JSON the function's schema says.
 */
export const qwen3Coder: ToolFormat = {
  keepsSpecialTokens: true,
  create: (sink, functions) => new Qwen3CoderToolParser(sink, functions),
};

const CALL = '<tool_call>';
const FUNCTION = '<function=';
const STARTS = new TagSplitter([CALL, FUNCTION]);
const FUNCTIONS = new TagSplitter([FUNCTION]);
const NAME_ENDS = new TagSplitter(['>']);
const PARAMETERS = new TagSplitter(['<parameter=', '</function>', '</tool_call>']);
const VALUE_ENDS = new TagSplitter(['</parameter>', '<parameter=', '</function>']);
const CALL_ENDS = new TagSplitter(['</tool_call>', CALL, FUNCTION]);

type State = 'content' | 'call' | 'name' | 'between' | 'key' | 'value' | 'tail';

class Qwen3CoderToolParser implements ToolParser {
  #state: State = 'content';
  #pending = '';
  /** Read since the call's beginning, told as nothing. */
  #raw = '';
  /** Of a function's name or a parameter's. */
  #name = '';
  #writer: JsonWriter;
  #properties: Readonly<Record<string, unknown>> = {};
  #value: ParameterValue;

  constructor(
    private readonly sink: ToolSink,
    private readonly functions: readonly FunctionDefinition[],
  ) {
    this.#writer = new JsonWriter((json) => sink.arguments(json));
    this.#value = new ParameterValue(this.#writer, new Set());
  }

  push(text: string): void {
    this.#pending += text;
    while (this.#step());
  }

  finish(): void {
    if (this.#state === 'value') this.#value.push(this.#pending);
    else if (this.#state === 'between') this.#writer.close('}');
    else if (this.#state === 'content' || this.#state === 'call' || this.#state === 'name') {
      this.#content(this.#raw + this.#pending);
    }
  }

  /** @returns whether there may be more */
  #step(): boolean {
    switch (this.#state) {
      case 'content':
        return this.#readContent();
      case 'call':
        return this.#readCall();
      case 'name':
        return this.#readName();
      case 'between':
        return this.#readBetween();
      case 'key':
        return this.#readKey();
      case 'value':
        return this.#readValue();
      default:
        return this.#readTail();
    }
  }

  #readContent(): boolean {
    const { before, tag, rest } = STARTS.split(this.#pending);
    this.#content(before);
    this.#pending = rest;
    if (tag !== null) this.#begin(tag);
    return tag !== null;
  }

  #begin(tag: string): void {
    this.#raw = tag;
    this.#name = '';
    this.#state = tag === CALL ? 'call' : 'name';
  }

  /** White space in front of the function; anything else makes it content. */
  #readCall(): boolean {
    const { before, tag, rest } = FUNCTIONS.split(this.#pending);
    this.#raw += before;
    this.#pending = rest;
    if (before.trim() !== '') {
      this.#content(this.#raw);
      this.#raw = '';
      this.#state = 'content';
      if (tag !== null) this.#begin(tag);
      return true;
    }
    if (tag === null) return false;
    this.#raw += tag;
    this.#state = 'name';
    return true;
  }

  #readName(): boolean {
    if (!this.#readUpToBracket()) return false;
    const name = this.#name.trim();
    if (name === '') {
      this.#content(`${this.#raw}>`);
      this.#raw = '';
      this.#state = 'content';
      return true;
    }
    this.sink.startCall(name);
    this.#raw = '';
    const schema = this.functions.find((each) => each.name === name)?.parameters;
    this.#properties = asObject(schema?.properties);
    this.#writer = new JsonWriter((json) => this.sink.arguments(json));
    this.#writer.open('{');
    this.#state = 'between';
    return true;
  }

  #readUpToBracket(): boolean {
    const { before, tag, rest } = NAME_ENDS.split(this.#pending);
    this.#name += before;
    this.#raw += before;
    this.#pending = rest;
    return tag !== null;
  }

  #readBetween(): boolean {
    const { tag, rest } = PARAMETERS.split(this.#pending);
    this.#pending = rest;
    if (tag === null) return false;
    this.#open(tag);
    return true;
  }

  /** What a tag between values begins. */
  #open(tag: string): void {
    if (tag === '</function>' || tag === '</tool_call>') {
      this.#writer.close('}');
      this.#state = tag === '</function>' ? 'tail' : 'content';
    } else if (tag === '</parameter>') this.#state = 'between';
    else {
      this.#name = '';
      this.#state = 'key';
    }
  }

  #readKey(): boolean {
    if (!this.#readUpToBracket()) return false;
    const key = this.#name.trim();
    this.#writer.key(key);
    this.#raw = '';
    this.#value = new ParameterValue(this.#writer, schemaTypes(this.#properties[key]));
    this.#state = 'value';
    return true;
  }

  #readValue(): boolean {
    const { before, tag, rest } = VALUE_ENDS.split(this.#pending);
    this.#value.push(before);
    this.#pending = rest;
    if (tag === null) return false;
    this.#value.finish();
    this.#open(tag);
    return true;
  }

  #readTail(): boolean {
    const { tag, rest } = CALL_ENDS.split(this.#pending);
    this.#pending = rest;
    if (tag === null) return false;
    if (tag === '</tool_call>') this.#state = 'content';
    else this.#begin(tag);
    return true;
  }

  #content(text: string): void {
    if (text !== '') this.sink.content(text);
  }
}

/** One parameter's value: text is passed on as it comes, anything else when it is whole. A line break on each side belongs to the format. */
class ParameterValue {
  #held = '';
  #isFirst = true;
  /** It can be nothing but text. */
  private readonly isText: boolean;

  constructor(
    private readonly writer: JsonWriter,
    private readonly types: ReadonlySet<string>,
  ) {
    this.isText = types.size === 1 && types.has('string');
  }

  push(text: string): void {
    this.#held += text;
    if (!this.isText || this.#held === '') return;
    if (this.#isFirst) {
      this.#isFirst = false;
      this.writer.beginString();
      if (this.#held.startsWith('\n')) this.#held = this.#held.slice(1);
    }
    const end = this.#held.endsWith('\n') ? this.#held.length - 1 : this.#held.length;
    this.writer.stringPiece(this.#held.slice(0, end));
    this.#held = this.#held.slice(end);
  }

  finish(): void {
    if (!this.isText) {
      this.writer.value(valueToJson(this.#held.replace(/^\n/, '').replace(/\n$/, ''), this.types));
      return;
    }
    if (this.#isFirst) this.writer.beginString();
    this.writer.endString();
  }
}

function asObject(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}
