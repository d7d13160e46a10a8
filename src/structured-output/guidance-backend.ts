import type { ModelConfig } from '../config/bao-config.ts';
import type { GrammarSpec } from '../sampling/structured-outputs-params.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { Grammar, GrammarBackend, GrammarMatcher, GrammarStatus, MatcherStatus } from './grammar.ts';
import { type GuidanceLibrary, openGuidanceLibrary } from './guidance-library.ts';

/** Of native memory, as a call gave it. */
type Address = NonNullable<ReturnType<GuidanceLibrary['bao_llg_compile']>>;

const utf8 = new TextEncoder();
/** Longer error texts are cut. */
const MAX_MESSAGE_BYTES = 2000;
/** llguidance's sign that it leaves the grammar out of the message. */
const NON_VERBOSE = /\n<non-verbose\/>$/;
/** Where it broke down over a grammar that is beyond its limits: the words, and a stack that is nobody's business. */
const PANIC = /^panic: (.*?)(\n<backtrace>.*)?$/s;
/** Between these many tokens other work of the thread gets its turn. */
const TOKENS_AT_ONCE = 4096;
/** What llguidance wants in front of a special token's text, so that no text of a grammar stands for it. */
const SPECIAL_TOKEN_MARKER = 0xff;

/** By the library's numbers. */
const STATUSES: readonly MatcherStatus[] = ['pending', 'open', 'complete'];
/** An empty array has no address. */
const NOT_EMPTY = new Uint8Array(1);

/** What of a model's configuration the engine needs. */
export interface GuidanceVocabulary extends Pick<ModelConfig, 'tokenizerFolder' | 'eosTokenIds'> {
  hf: Pick<ModelConfig['hf'], 'vocabSize'>;
}

/** llguidance. Vocabulary and grammars are the process's: what one thread has registered or compiled, all others find. */
export class GuidanceBackend implements GrammarBackend {
  readonly maskWords: number;
  private readonly library: GuidanceLibrary;
  private readonly vocabSize: number;
  private readonly eosTokenIds: readonly number[];
  private readonly name: Uint8Array;

  /** Grammars can be compiled once a thread has registered the vocabulary. Throws Error where the library is missing. */
  constructor({ model }: { model: GuidanceVocabulary }) {
    this.library = openGuidanceLibrary();
    this.vocabSize = model.hf.vocabSize;
    this.eosTokenIds = model.eosTokenIds;
    this.maskWords = Math.ceil(this.vocabSize / 32);
    this.name = utf8.encode(`${model.tokenizerFolder} ${this.vocabSize} ${this.eosTokenIds}`);
  }

  /** Grammars and matchers of the whole process that have not been freed. */
  get numLive(): number {
    return this.library.bao_llg_num_live();
  }

  /** Does nothing where a thread has done it. Throws Error for a vocabulary without an end. */
  async registerVocabulary(tokenizer: Tokenizer): Promise<void> {
    const { name, vocabSize } = this;
    if (this.library.bao_llg_has_vocabulary(name, name.length) === 1) return;
    const eos = Uint32Array.from(this.eosTokenIds);
    if (eos.length === 0) throw new Error('the model has no end-of-text token, which a grammar needs');
    const lengths = new Uint32Array(vocabSize);
    const parts: Uint8Array[] = [];
    for (let id = 0; id < vocabSize; id++) {
      if (id % TOKENS_AT_ONCE === 0) await Bun.sleep(0);
      const bytes = tokenizer.tokenBytes(id);
      if (bytes === null) continue;
      const isSpecial = tokenizer.specialTokenIds.has(id);
      if (isSpecial) parts.push(Uint8Array.of(SPECIAL_TOKEN_MARKER));
      parts.push(bytes);
      lengths[id] = bytes.length + Number(isSpecial);
    }
    const bytes = Buffer.concat(parts);
    const code = this.library.bao_llg_add_vocabulary(name, name.length, lengths, vocabSize, bytes, eos, eos.length);
    if (code !== 0) throw new Error('the grammar engine can not use the vocabulary');
  }

  compile({ kind, text, jsonBegins }: GrammarSpec): Grammar {
    const kindBytes = utf8.encode(kind);
    const bytes = utf8.encode(text);
    const { name } = this;
    const grammar = this.library.bao_llg_compile(
      name,
      name.length,
      kindBytes,
      kindBytes.length,
      bytes.length === 0 ? NOT_EMPTY : bytes,
      bytes.length,
    );
    if (grammar === null) throw new Error('the vocabulary is not registered with the grammar engine');
    return new GuidanceGrammar(this.library, grammar, jsonBegins?.map((begin) => utf8.encode(begin)) ?? null);
  }

  workNow(matcher: GrammarMatcher): void {
    this.library.bao_llg_work_now((matcher as GuidanceMatcher).pointer);
  }

  wait(matchers: readonly GrammarMatcher[], timeoutMs: number): void {
    if (matchers.length > 0) this.library.bao_llg_wait(pointersOf(matchers), matchers.length, timeoutMs * 1000);
  }

  copyMasks(matchers: readonly GrammarMatcher[], dest: Int32Array): void {
    if (matchers.length === 0) return;
    const done = this.library.bao_llg_copy_masks(pointersOf(matchers), matchers.length, dest, this.maskWords);
    if (done !== matchers.length) throw new Error(`matcher ${done} of ${matchers.length} has no mask`);
  }
}

function pointersOf(matchers: readonly GrammarMatcher[]): BigInt64Array {
  return BigInt64Array.from(matchers, (matcher) => BigInt((matcher as GuidanceMatcher).pointer));
}

class GuidanceGrammar implements Grammar {
  constructor(
    private readonly library: GuidanceLibrary,
    private readonly pointer: Address,
    /** null: white space is not bounded. */
    private readonly jsonBegins: readonly Uint8Array[] | null,
  ) {}

  get status(): GrammarStatus {
    const status = this.library.bao_llg_grammar_status(this.pointer);
    if (status === 0) return 'compiling';
    return status === 1 ? 'ready' : 'failed';
  }

  message(): string {
    const buffer = new Uint8Array(MAX_MESSAGE_BYTES);
    const length = this.library.bao_llg_grammar_message(this.pointer, buffer, buffer.length);
    return new TextDecoder()
      .decode(buffer.subarray(0, length))
      .replace(NON_VERBOSE, '')
      .replace(PANIC, 'the engine can not compile it ($1)');
  }

  createMatcher(): GrammarMatcher {
    const begins = this.jsonBegins ?? [];
    const pointer = this.library.bao_llg_new_matcher(
      this.pointer,
      Uint32Array.of(...begins.map(({ length }) => length), 0),
      this.jsonBegins === null ? -1 : begins.length,
      Buffer.concat([...begins, NOT_EMPTY]),
    );
    if (pointer === null) throw new Error(`a grammar that is ${this.status} has no matchers`);
    return new GuidanceMatcher(this.library, pointer);
  }

  free(): void {
    this.library.bao_llg_free_grammar(this.pointer);
  }
}

class GuidanceMatcher implements GrammarMatcher {
  constructor(
    private readonly library: GuidanceLibrary,
    readonly pointer: Address,
  ) {}

  get status(): MatcherStatus {
    const code = this.library.bao_llg_matcher_status(this.pointer);
    return code < 0 ? 'refused' : STATUSES[code]!;
  }

  advance(tokenIds: readonly number[]): void {
    if (tokenIds.length === 0) return;
    const code = this.library.bao_llg_advance(this.pointer, Uint32Array.from(tokenIds), tokenIds.length);
    if (code !== 0) throw new Error('a matcher that is pending takes no tokens');
  }

  free(): void {
    this.library.bao_llg_free_matcher(this.pointer);
  }
}
