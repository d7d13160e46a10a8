import type { BaoConfig } from '../../config/bao-config.ts';
import type { GrammarSpec } from '../../sampling/structured-outputs-params.ts';
import type { Grammar, GrammarBackend, GrammarMatcher, GrammarStatus, MatcherStatus } from '../grammar.ts';
import type { XGrammarVocabulary } from './xgrammar-engine.ts';
import { isXGrammarSpec, type XGrammarSpec } from './xgrammar-spec.ts';
import { XGrammarThread } from './xgrammar-thread.ts';

/** Workers of one thread; each has the vocabulary and the engine's memory. Further grammars wait. */
const MAX_THREADS = 4;

/**
 * XGrammar. Its build for JavaScript can't take a compiled grammar from one thread to another, and a compile may take seconds: so grammars live in
 * Workers, and a Worker either compiles or follows texts.
 */
export class XGrammarBackend implements GrammarBackend {
  readonly maskWords: number;
  private readonly vocabulary: XGrammarVocabulary;
  private readonly threads = new Set<XGrammarThread>();
  /** In the order in which they came. */
  private readonly waiting = new Set<XGrammar>();

  /** Throws Error for a model without a tokenizer. */
  constructor({ model }: BaoConfig) {
    if (model.tokenizerFolder === null) throw new Error('a grammar needs a tokenizer');
    const { tokenizerFolder, eosTokenIds, hf } = model;
    this.vocabulary = { tokenizerFolder, eosTokenIds, vocabSize: hf.vocabSize };
    this.maskWords = Math.ceil(hf.vocabSize / 32);
  }

  compile(spec: GrammarSpec): Grammar {
    if (!isXGrammarSpec(spec)) throw new Error(`XGrammar knows no grammar of kind ${spec.kind}`);
    const grammar = new XGrammar(this, spec);
    this.waiting.add(grammar);
    this.assign();
    return grammar;
  }

  wait(matchers: readonly GrammarMatcher[], timeoutMs: number): void {
    const deadline = performance.now() + timeoutMs;
    for (const matcher of matchers as readonly XGrammarMatcher[]) {
      while (matcher.status === 'pending') {
        const left = deadline - performance.now();
        if (left <= 0) return;
        matcher.thread.wait(left);
      }
    }
  }

  copyMasks(matchers: readonly GrammarMatcher[], dest: Int32Array): void {
    (matchers as readonly XGrammarMatcher[]).forEach(({ mask }, i) => {
      dest.set(mask, i * this.maskWords);
    });
  }

  /** Gives those that wait what is free. */
  assign(): void {
    for (const thread of this.threads) if (thread.isDead) this.threads.delete(thread);
    for (const grammar of this.waiting) {
      const thread = this.threadFor(grammar.spec);
      if (thread === null) return;
      this.waiting.delete(grammar);
      grammar.start(thread);
    }
  }

  forget(grammar: XGrammar): void {
    this.waiting.delete(grammar);
  }

  close(): void {
    for (const thread of this.threads) thread.kill();
    this.threads.clear();
  }

  private threadFor(spec: XGrammarSpec): XGrammarThread | null {
    const threads = [...this.threads];
    const found = threads.find((thread) => thread.find(spec) !== null) ?? threads.find((thread) => thread.isFree);
    if (found !== undefined) return found;
    if (this.threads.size >= MAX_THREADS) return null;
    const thread = new XGrammarThread(this.vocabulary);
    this.threads.add(thread);
    return thread;
  }
}

class XGrammar implements Grammar {
  private thread: XGrammarThread | null = null;
  private number: number | null = null;
  private reason: string | null = null;
  private freed = false;

  constructor(
    private readonly backend: XGrammarBackend,
    readonly spec: XGrammarSpec,
  ) {}

  start(thread: XGrammarThread): void {
    this.thread = thread;
    this.number = thread.find(this.spec);
    if (this.number === null) {
      thread.startCompile(this.spec, (compiled) => {
        if ('number' in compiled) this.number = compiled.number;
        else this.reason = compiled.reason;
      });
    }
    thread.numUsers++;
  }

  get status(): GrammarStatus {
    if (this.thread === null) this.backend.assign();
    this.thread?.poll();
    if (this.reason !== null) return 'failed';
    return this.number === null ? 'compiling' : 'ready';
  }

  message(): string {
    return this.reason ?? '';
  }

  createMatcher(): GrammarMatcher {
    if (this.thread === null || this.number === null)
      throw new Error(`a grammar that is ${this.status} has no matchers`);
    return new XGrammarMatcher(this.thread, this.number, this.backend.maskWords);
  }

  free(): void {
    if (this.freed) return;
    this.freed = true;
    this.backend.forget(this);
    if (this.thread === null) return;
    this.thread.numUsers--;
    // A compile that nobody waits for can only be ended with its Worker.
    if (this.number === null && this.reason === null) this.thread.kill();
    this.backend.assign();
  }
}

class XGrammarMatcher implements GrammarMatcher {
  mask: Int32Array = new Int32Array();
  private known: MatcherStatus = 'pending';
  private readonly number: number;

  constructor(
    readonly thread: XGrammarThread,
    grammar: number,
    private readonly maskWords: number,
  ) {
    this.number = thread.newMatcher(grammar, this.take);
  }

  get status(): MatcherStatus {
    if (this.known !== 'pending') return this.known;
    this.thread.poll();
    return this.known;
  }

  advance(tokenIds: readonly number[]): void {
    if (tokenIds.length === 0 || this.known === 'refused') return;
    this.known = 'pending';
    this.thread.advance(this.number, tokenIds, this.take);
  }

  free(): void {
    this.thread.freeMatcher(this.number);
  }

  private readonly take = (status: number | null): void => {
    this.known = status === null ? 'refused' : STATUSES[status]!;
    if (status !== null) this.mask = this.thread.mask(this.maskWords);
  };
}

/** By the Worker's numbers. */
const STATUSES: readonly MatcherStatus[] = ['open', 'complete', 'refused'];
