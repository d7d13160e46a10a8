import * as xgrammar from '@mlc-ai/web-xgrammar';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import type { TagFormat } from '../grammar-spec.ts';
import { mapSchemas, type XGrammarSpec } from './xgrammar-spec.ts';

export interface XGrammarVocabulary {
  tokenizerFolder: string;
  vocabSize: number;
  eosTokenIds: readonly number[];
}

/** XGrammar in this thread. Its WebAssembly ends itself on every error: after one the whole thread has to be replaced. */
export class XGrammarEngine {
  private constructor(
    private readonly compiler: xgrammar.GrammarCompiler,
    private readonly vocabulary: XGrammarVocabulary,
  ) {}

  static async create(tokenizer: Tokenizer, vocabulary: XGrammarVocabulary): Promise<XGrammarEngine> {
    const { vocabSize, eosTokenIds } = vocabulary;
    const texts = Array.from({ length: vocabSize }, (_, id) => textOf(tokenizer, id));
    const stops = [...eosTokenIds];
    const info = await xgrammar.TokenizerInfo.createTokenizerInfo(texts, 'byte_level', false, vocabSize, stops);
    return new XGrammarEngine(await xgrammar.GrammarCompiler.createGrammarCompiler(info, false), vocabulary);
  }

  async compile({ kind, text }: XGrammarSpec): Promise<xgrammar.CompiledGrammar> {
    if (kind === 'ebnf') return this.compiler.compileGrammar(text);
    if (kind === 'xgrammar_tag') return this.compiler.compileStructuralTag(JSON.stringify(await structuralTag(text)));
    const { schema, any_whitespace: anyWhitespace } = JSON.parse(text) as { schema: object; any_whitespace: boolean };
    return this.compiler.compileGrammar(await schemaGrammar(JSON.stringify(schema), anyWhitespace));
  }

  async createMatcher(grammar: xgrammar.CompiledGrammar): Promise<XGrammarMatcher> {
    const matcher = await xgrammar.GrammarMatcher.createGrammarMatcher(grammar);
    const { vocabSize, eosTokenIds } = this.vocabulary;
    const end = new Int32Array(Math.ceil(vocabSize / 32));
    for (const id of eosTokenIds) end[id >> 5]! |= 1 << (id & 31);
    return new XGrammarMatcher(matcher, end, await matcher.getNextTokenBitmask());
  }
}

/** One sequence's place, with the mask of its next token. */
export class XGrammarMatcher {
  status: 'open' | 'complete' | 'refused';

  constructor(
    private readonly matcher: xgrammar.GrammarMatcher,
    /** Nothing but the tokens that end a text. */
    private readonly end: Int32Array,
    public mask: Int32Array,
  ) {
    this.status = this.statusOfMask();
  }

  async advance(tokenIds: Iterable<number>): Promise<void> {
    for (const tokenId of tokenIds) {
      if (this.matcher.isTerminated() || !this.matcher.acceptToken(tokenId)) {
        this.status = 'refused';
        return;
      }
    }
    this.mask = this.matcher.isTerminated() ? this.end : await this.matcher.getNextTokenBitmask();
    this.status = this.statusOfMask();
  }

  free(): void {
    this.matcher.dispose();
  }

  /** Without any token that may follow it is refused. */
  private statusOfMask(): 'open' | 'complete' | 'refused' {
    if (this.mask.every((word) => word === 0)) return 'refused';
    return this.mask.every((word, i) => (word & ~this.end[i]!) === 0) ? 'complete' : 'open';
  }
}

/** XGrammar has no say over the white space of a tag's schemas: so they become grammars. */
async function structuralTag(text: string): Promise<object> {
  const { format, any_whitespace: anyWhitespace } = JSON.parse(text) as { format: TagFormat; any_whitespace: boolean };
  const grammars = new Map<string, string>();
  mapSchemas(format, (node) => {
    if (node.type === 'json_schema') grammars.set(JSON.stringify(node.json_schema), '');
    return node;
  });
  for (const schema of grammars.keys()) grammars.set(schema, await schemaGrammar(schema, anyWhitespace));
  const asGrammar = (node: TagFormat & { json_schema: unknown }): TagFormat =>
    node.type === 'json_schema' ? { type: 'grammar', grammar: grammars.get(JSON.stringify(node.json_schema))! } : node;
  return { type: 'structural_tag', format: mapSchemas(format, asGrammar) };
}

/** A schema as EBNF. White space is that of one line, or as much as a text that is laid out over lines has. */
async function schemaGrammar(schema: string, anyWhitespace: boolean): Promise<string> {
  const grammar = await xgrammar.Grammar.fromJSONSchema(schema, anyWhitespace, ONE_LINE, [', ', ': '], OPEN_OBJECTS);
  const text = grammar.toString();
  grammar.dispose();
  return anyWhitespace ? boundWhitespace(text) : text;
}

/** XGrammar's white space has no end: a model that likes it would write nothing else. Classes and literals are passed over whole. */
function boundWhitespace(ebnf: string): string {
  const bounded = ebnf.replace(/\[ \\n\\t\]\*|\[(?:[^\]\\]|\\.)*\]|"(?:[^"\\]|\\.)*"/g, (found) =>
    found === ANY_WHITESPACE ? 'json_space' : found,
  );
  return `${bounded}\njson_space ::= [ ]{0,2} | [ ]{0,2} [\\n] [ \\t]{0,64}\n`;
}

const ANY_WHITESPACE = String.raw`[ \n\t]*`;
const ONE_LINE = -1;
/** Objects may have properties that a schema does not list. */
const OPEN_OBJECTS = false;

/** Bytes as GPT-2 writes them: printable characters stand for themselves, the others for those from U+0100 on. */
const BYTE_CHARACTERS: readonly string[] = byteCharacters();

function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const isPrintable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(isPrintable ? byte : next++);
  });
}

/** Special tokens are no text; XGrammar knows them by that they have none. */
function textOf(tokenizer: Tokenizer, id: number): string {
  const bytes = tokenizer.specialTokenIds.has(id) ? null : tokenizer.tokenBytes(id);
  return bytes === null ? '' : Array.from(bytes, (byte) => BYTE_CHARACTERS[byte]).join('');
}
