import type { BaoConfig } from '../config/bao-config.ts';
import { ValidationError } from '../engine/engine-client.ts';
import { logger } from '../logging/logger.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { GrammarBackend, GrammarSpec, StructuredOutputsParams } from './grammar.ts';
import { checkGrammarLimits } from './grammar-limits.ts';
import { type Constraint, grammarSpec, type JsonOptions } from './grammar-spec.ts';
import { GuidanceBackend } from './guidance-backend.ts';

const log = logger('structured-output');

/** A compile takes milliseconds; what takes longer than this is refused. */
const COMPILE_DEADLINE_MS = 5000;
const POLL_MS = 1;
/** llguidance's words for a schema that says more than it can keep to; `lenient` makes it drop those keywords. */
const NOT_EXACT = /^Unimplemented keys|oneOf|not supported|[Uu]nsupported/;

/** What a request asks its output to match. */
export interface StructuredOutputsRequest {
  constraint: Constraint;
  /** True: a schema that can't be kept to exactly is refused. */
  strict: boolean;
  options: JsonOptions;
}

/** The front end's side of structured output: every grammar is compiled once before its request goes to a core, so that what is wrong with it is the answer. */
export class StructuredOutputs {
  private backend: Promise<GrammarBackend> | null = null;

  constructor(
    private readonly config: BaoConfig,
    private readonly tokenizer: Tokenizer | null,
  ) {}

  /**
   * The constraint as a core takes it.
   *
   * @throws ValidationError with the engine's own words for a grammar that it refuses, and for one that takes too long
   */
  async resolve(request: StructuredOutputsRequest | null): Promise<StructuredOutputsParams | null> {
    if (request === null) return null;
    const options = this.withDefaults(request.options);
    const exact = grammarSpec(request.constraint, options);
    let message = await this.compile(exact);
    if (message === null) return { ...exact, startsAfter: null };
    if (!request.strict && NOT_EXACT.test(message)) {
      const loose = grammarSpec(request.constraint, { ...options, lenient: true });
      const looseMessage = await this.compile(loose);
      if (looseMessage === null) {
        log.warn(`A schema is kept to only loosely: ${message}`);
        return { ...loose, startsAfter: null };
      }
      message = looseMessage;
    }
    throw new ValidationError(`Grammar error: ${message}`);
  }

  private withDefaults(options: JsonOptions): JsonOptions {
    const defaults = this.config.structuredOutputs;
    return {
      ...options,
      disableAnyWhitespace: options.disableAnyWhitespace || defaults.disableAnyWhitespace,
      disableAdditionalProperties: options.disableAdditionalProperties || defaults.disableAdditionalProperties,
    };
  }

  /** null when it compiles, else why it does not. The result stays in the engine's cache, where the core finds it. */
  private async compile(spec: GrammarSpec): Promise<string | null> {
    checkGrammarLimits(spec);
    this.backend ??= this.openBackend();
    const grammar = (await this.backend).compile(spec);
    try {
      const deadline = performance.now() + COMPILE_DEADLINE_MS;
      while (grammar.status === 'compiling') {
        if (performance.now() > deadline) return `it was not compiled within ${COMPILE_DEADLINE_MS / 1000} seconds`;
        await Bun.sleep(POLL_MS);
      }
      return grammar.status === 'ready' ? null : grammar.message();
    } finally {
      grammar.free();
    }
  }

  private async openBackend(): Promise<GrammarBackend> {
    if (this.tokenizer === null) {
      throw new ValidationError(
        'Structured outputs need a tokenizer, and this server runs with --skip-tokenizer-init.',
      );
    }
    try {
      const backend = new GuidanceBackend(this.config);
      await backend.registerVocabulary(this.tokenizer);
      return backend;
    } catch (error) {
      throw new ValidationError(
        `Structured outputs are not available: ${error instanceof Error ? error.message : error}.`,
      );
    }
  }
}
