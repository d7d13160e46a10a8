import type { BaoConfig } from '../config/bao-config.ts';
import { ValidationError } from '../errors/validation-error.ts';
import { logger } from '../logging/logger.ts';
import type { GrammarSpec, StructuredOutputsParams } from '../sampling/structured-outputs-params.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { backendOf, createGrammarBackend, type GrammarBackendName } from './create-backend.ts';
import type { GrammarBackend } from './grammar.ts';
import { checkGrammarLimits } from './grammar-limits.ts';
import { type Constraint, grammarSpec, type JsonOptions } from './grammar-spec.ts';
import { GuidanceBackend } from './guidance-backend.ts';
import { schemaFault } from './schema-fault.ts';
import { GrammarTrials } from './trial/grammar-trials.ts';
import { inexactKeyword } from './xgrammar/inexact-keyword.ts';
import { schemasOf, xgrammarSpec } from './xgrammar/xgrammar-spec.ts';

const log = logger('structured-output');

/** A compile takes milliseconds; what takes longer than this is refused. */
const COMPILE_DEADLINE_MS = 5000;
/** What has passed its trial comes to an end, if late on a busy machine. */
const TRIED_DEADLINE_MS = 30_000;
const POLL_MS = 1;
/** Of a request with several, those among which a wrong one is looked for. */
const MAX_SCHEMAS_LOCATED = 100;
/** llguidance's words for a schema that says more than it can keep to; `lenient` makes it drop those keywords. */
const NOT_EXACT =
  /^Unimplemented keys|^Unknown format|oneOf|not supported|only supported|[Uu]nsupported|not disjoint|level exceeded|Unable to determine/;

/** What a request asks its output to match. */
export interface StructuredOutputsRequest {
  constraint: Constraint;
  /** True: a schema that can't be kept to exactly is refused. */
  strict: boolean;
  options: JsonOptions;
}

/**
 * The front end's side of structured output: every grammar is compiled once before its request goes to a core, so that what is wrong with it is the answer, and
 * the engine for it is chosen (`--structured-outputs-config.backend`).
 */
export class StructuredOutputs {
  private readonly backends = new Map<GrammarBackendName, Promise<GrammarBackend>>();
  /** Of llguidance's grammars; null until there is one. */
  private trials: GrammarTrials | null = null;

  constructor(
    private readonly config: BaoConfig,
    private readonly tokenizer: Tokenizer | null,
    private readonly createBackend = createGrammarBackend,
  ) {}

  /**
   * The constraint as a core takes it.
   *
   * @throws ValidationError with the engine's own words for a grammar that it refuses, and for one that takes too long
   */
  async resolve(request: StructuredOutputsRequest | null): Promise<StructuredOutputsParams | null> {
    if (request === null) return null;
    if (this.tokenizer === null) {
      throw new ValidationError(
        'Structured outputs need a tokenizer, and this server runs with --skip-tokenizer-init.',
      );
    }
    const given = { ...request, options: this.withDefaults(request.options) };
    const engine = await this.chooseEngine(given);
    return engine === 'xgrammar' ? this.withXGrammar(given, null) : this.withGuidance(given);
  }

  /** Ends what runs beside the server for it. */
  close(): void {
    this.trials?.close();
  }

  private async chooseEngine({ constraint }: StructuredOutputsRequest): Promise<GrammarBackendName> {
    const { backend } = this.config.structuredOutputs;
    if (backend !== 'auto') return backend;
    if (constraint.kind === 'ebnf' || constraint.kind === 'tag_format') return 'xgrammar';
    // Nothing else takes Lark, so it is for llguidance to say why it is not there.
    if (constraint.kind === 'grammar') return 'guidance';
    return this.backend('guidance').then(
      () => 'guidance',
      () => 'xgrammar',
    );
  }

  private async withGuidance(request: StructuredOutputsRequest): Promise<StructuredOutputsParams> {
    const { constraint, options, strict } = request;
    const exact = grammarSpec(constraint, options);
    const message = await this.compile(exact);
    if (message === null) return accepted(exact);
    if (!NOT_EXACT.test(message)) throw await this.refusalAt(request, message);
    const { backend } = this.config.structuredOutputs;
    if (strict) {
      if (backend === 'guidance') throw await this.refusalAt(request, message);
      return this.withXGrammar(request, message);
    }
    const loose = grammarSpec(constraint, { ...options, lenient: true });
    const looseMessage = await this.compile(loose);
    if (looseMessage === null) {
      log.warn(`A schema is kept to only loosely: ${message}`);
      return accepted(loose);
    }
    const lenient = { ...request, options: { ...options, lenient: true } };
    if (backend === 'guidance') throw await this.refusalAt(lenient, looseMessage);
    return this.withXGrammar(request, looseMessage);
  }

  /** @param instead what llguidance has said against it, where it was asked first */
  private async withXGrammar(
    request: StructuredOutputsRequest,
    instead: string | null,
  ): Promise<StructuredOutputsParams> {
    const { constraint, options, strict } = request;
    const spec = xgrammarSpec(constraint, options);
    checkGrammarLimits(spec);
    const inexact =
      schemasOf(constraint)
        .map(inexactKeyword)
        .find((keyword) => keyword !== null) ?? null;
    if (inexact !== null && strict) {
      if (instead !== null) throw await this.refusalAt(request, instead);
      throw refusal(`XGrammar can not keep to "${inexact}" exactly, which strict asks for`);
    }
    const message = await this.compile(spec);
    if (message !== null) throw refusal(instead ?? message);
    const why = instead === null ? '' : `, since llguidance refuses it (${instead})`;
    if (this.config.structuredOutputs.backend === 'auto') log.info(`A grammar is left to XGrammar${why}`);
    if (inexact !== null) log.warn(`A schema is kept to only loosely: XGrammar does not keep to "${inexact}"`);
    return accepted(spec);
  }

  /** llguidance's words, and where in the schema they are about, which it does not say. Of several schemas, as forced tools have, the first that is refused counts. */
  private async refusalAt(
    { constraint, options }: StructuredOutputsRequest,
    message: string,
  ): Promise<ValidationError> {
    const judge = (schema: unknown) => this.compile(grammarSpec({ kind: 'json', schema }, options));
    // What can't be compiled for another reason, such as too much to do, is no reason to answer otherwise.
    const locate = (schema: unknown, words: string) => schemaFault(schema, words, judge).catch(() => null);
    if (constraint.kind === 'json') {
      const pointer = await locate(constraint.schema, message);
      return refusal(pointer === null ? message : `${message} (at ${pointer} of the schema)`);
    }
    if (constraint.kind === 'framed') {
      for (const [i, { schema }] of constraint.pieces.slice(0, MAX_SCHEMAS_LOCATED).entries()) {
        const words = await judge(schema).catch(() => null);
        if (words === null) continue;
        return refusal(`${words} (at ${(await locate(schema, words)) ?? 'the top'} of schema ${i + 1})`);
      }
    }
    return refusal(message);
  }

  private withDefaults(options: JsonOptions): JsonOptions {
    const defaults = this.config.structuredOutputs;
    return {
      ...options,
      disableAnyWhitespace: options.disableAnyWhitespace || defaults.disableAnyWhitespace,
      disableAdditionalProperties: options.disableAdditionalProperties || defaults.disableAdditionalProperties,
    };
  }

  /** null when it compiles, else why it does not. llguidance keeps the result in a cache, where the core finds it; XGrammar's core compiles again. */
  private async compile(spec: GrammarSpec): Promise<string | null> {
    checkGrammarLimits(spec);
    const name = backendOf(spec);
    const backend = await this.backend(name).catch(unavailable);
    const found = name === 'guidance' ? await this.trials?.try(spec) : null;
    if (found != null) return found;
    const grammar = backend.compile(spec);
    try {
      const allowedMs = name === 'guidance' ? TRIED_DEADLINE_MS : COMPILE_DEADLINE_MS;
      const deadline = performance.now() + allowedMs;
      while (grammar.status === 'compiling') {
        if (performance.now() > deadline) return `it was not compiled within ${allowedMs / 1000} seconds`;
        await Bun.sleep(POLL_MS);
      }
      return grammar.status === 'ready' ? null : grammar.message();
    } finally {
      grammar.free();
    }
  }

  private backend(name: GrammarBackendName): Promise<GrammarBackend> {
    const backend = this.backends.get(name) ?? this.openBackend(name);
    this.backends.set(name, backend);
    return backend;
  }

  private async openBackend(name: GrammarBackendName): Promise<GrammarBackend> {
    const backend = this.createBackend(name, this.config);
    if (backend instanceof GuidanceBackend) {
      await backend.registerVocabulary(this.tokenizer!);
      const { tokenizerFolder, eosTokenIds, hf } = this.config.model;
      this.trials = new GrammarTrials({ tokenizerFolder, eosTokenIds, hf: { vocabSize: hf.vocabSize } });
    }
    return backend;
  }
}

function accepted(spec: GrammarSpec): StructuredOutputsParams {
  return { ...spec, startsAfter: null };
}

function refusal(message: string): ValidationError {
  return new ValidationError(`Grammar error: ${message}`);
}

function unavailable(error: unknown): never {
  throw new ValidationError(`Structured outputs are not available: ${error instanceof Error ? error.message : error}.`);
}
