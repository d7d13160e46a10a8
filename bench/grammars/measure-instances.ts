import type { BaoConfig } from '../../src/config/bao-config.ts';
import { ValidationError } from '../../src/errors/validation-error.ts';
import type { GrammarSpec } from '../../src/sampling/structured-outputs-params.ts';
import {
  backendOf,
  createGrammarBackend,
  type GrammarBackendName,
} from '../../src/structured-output/create-backend.ts';
import type { Grammar, GrammarBackend, GrammarMatcher } from '../../src/structured-output/grammar.ts';
import { StructuredOutputs } from '../../src/structured-output/structured-outputs.ts';
import { inexactKeyword } from '../../src/structured-output/xgrammar/inexact-keyword.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { median, percentile } from '../statistics.ts';
import { instanceFiles, readInstances, type SchemaWithInstances } from './instances.ts';
import { isSet } from './mask.ts';

/** What becomes of schemas and their instances with one choice of engine. */
export interface InstanceFigures {
  backend: GrammarBackendName | 'auto';
  strict: boolean;
  indent: number;
  vocab_size: number;
  num_schemas: number;
  /** Taken, and of these read more loosely than written, or by XGrammar. */
  num_accepted: number;
  num_loose: number;
  num_xgrammar: number;
  num_refused: number;
  /** Refused because a compile took too long; part of num_refused. */
  num_too_slow: number;
  /** Of schemas that are accepted: from the request until it may go to a core. */
  compile_p50_ms: number;
  compile_p99_ms: number;
  compile_max_ms: number;
  /** A token's mask, and the step over the token. */
  num_masks: number;
  mask_p50_us: number;
  mask_p99_us: number;
  mask_max_us: number;
  /** Instances of accepted schemas; the shares are of these. */
  num_valid: number;
  num_invalid: number;
  valid_accepted: number;
  invalid_rejected: number;
  /** Most frequent reasons of refusals, with their numbers. */
  refusals: Record<string, number>;
}

export interface InstanceOptions {
  folder: string;
  backend: GrammarBackendName | 'auto';
  strict: boolean;
  /** Spaces a level by which instances are laid out; 0: they are on one line. */
  indent: number;
  /** null: all files of the folder. */
  numSchemas: number | null;
  seed: number;
}

/** Compiles each schema as a request's would be, and tells its valid and invalid instances apart by the masks. */
export async function measureInstances(config: BaoConfig, options: InstanceOptions): Promise<InstanceFigures> {
  const tokenizer = await createTokenizer(config.model.tokenizerFolder!, { mode: 'auto' });
  const meter = new InstanceMeter(config, tokenizer, options);
  await meter.warmUp();
  for (const file of instanceFiles(options.folder, options.numSchemas, options.seed)) {
    await meter.take(await readInstances(options.folder, file, options.indent));
  }
  meter.close();
  return meter.figures();
}

const MAX_REASONS = 8;
/** A mask that takes longer is as good as none. */
const MASK_DEADLINE_MS = 10_000;
const JSON_OPTIONS = { disableAnyWhitespace: false, disableAdditionalProperties: false, whitespacePattern: null };

class InstanceMeter {
  private readonly backends = new Map<GrammarBackendName, GrammarBackend>();
  private readonly structuredOutputs: StructuredOutputs;
  private readonly compiles: number[] = [];
  private readonly masks: number[] = [];
  private readonly reasons = new Map<string, number>();
  private readonly counts = { loose: 0, xgrammar: 0, refused: 0, tooSlow: 0 };
  private readonly instances = { valid: 0, invalid: 0, validAccepted: 0, invalidRejected: 0 };

  constructor(
    private readonly config: BaoConfig,
    private readonly tokenizer: Tokenizer,
    private readonly options: InstanceOptions,
  ) {
    const chosen = { ...config, structuredOutputs: { ...config.structuredOutputs, backend: options.backend } };
    this.structuredOutputs = new StructuredOutputs(chosen, tokenizer, (name) => this.open(name));
  }

  /** What the engines need of the vocabulary is made with the first grammar. */
  async warmUp(): Promise<void> {
    await this.resolve({ type: 'boolean' });
  }

  async take({ schema, instances }: SchemaWithInstances): Promise<void> {
    const started = performance.now();
    const spec = await this.resolve(schema);
    if (spec === null) return;
    this.compiles.push(performance.now() - started);
    if (isLoose(spec, schema)) this.counts.loose++;
    const name = backendOf(spec);
    if (name === 'xgrammar') this.counts.xgrammar++;
    const backend = this.backends.get(name)!;
    // In the engine's cache since `resolve`.
    const grammar = await compiled(backend.compile(spec));
    for (const { valid, text } of instances) this.count(valid, this.accepts(backend, grammar, text));
    grammar.free();
  }

  close(): void {
    this.structuredOutputs.close();
    for (const backend of this.backends.values()) backend.close?.();
  }

  figures(): InstanceFigures {
    const { compiles, masks, counts, instances, options } = this;
    return {
      backend: options.backend,
      strict: options.strict,
      indent: options.indent,
      vocab_size: this.config.model.hf.vocabSize,
      num_schemas: compiles.length + counts.refused,
      num_accepted: compiles.length,
      num_loose: counts.loose,
      num_xgrammar: counts.xgrammar,
      num_refused: counts.refused,
      num_too_slow: counts.tooSlow,
      compile_p50_ms: median(compiles),
      compile_p99_ms: percentile(compiles, 99),
      compile_max_ms: percentile(compiles, 100),
      num_masks: masks.length,
      mask_p50_us: median(masks),
      mask_p99_us: percentile(masks, 99),
      mask_max_us: percentile(masks, 100),
      num_valid: instances.valid,
      num_invalid: instances.invalid,
      valid_accepted: instances.validAccepted / Math.max(instances.valid, 1),
      invalid_rejected: instances.invalidRejected / Math.max(instances.invalid, 1),
      refusals: Object.fromEntries([...this.reasons].sort(([, a], [, b]) => b - a).slice(0, MAX_REASONS)),
    };
  }

  private open(name: GrammarBackendName): GrammarBackend {
    const backend = this.backends.get(name) ?? createGrammarBackend(name, this.config);
    this.backends.set(name, backend);
    return backend;
  }

  /** null where it is refused. */
  private async resolve(schema: unknown): Promise<GrammarSpec | null> {
    const { strict } = this.options;
    try {
      const constraint = { kind: 'json', schema } as const;
      return await this.structuredOutputs.resolve({ constraint, strict, options: JSON_OPTIONS });
    } catch (error) {
      if (!(error instanceof ValidationError)) throw error;
      const reason = reasonOf(error);
      this.counts.refused++;
      if (reason.includes('was not compiled within')) this.counts.tooSlow++;
      this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
      return null;
    }
  }

  private count(valid: boolean, accepted: boolean): void {
    const { instances } = this;
    if (valid) {
      instances.valid++;
      if (accepted) instances.validAccepted++;
    } else {
      instances.invalid++;
      if (!accepted) instances.invalidRejected++;
    }
  }

  private accepts(backend: GrammarBackend, grammar: Grammar, text: string): boolean {
    const matcher = grammar.createMatcher();
    try {
      return this.walk(backend, matcher, this.tokenizer.encode(text, { addSpecialTokens: false }));
    } finally {
      matcher.free();
    }
  }

  /** Whether the masks let the tokens and then an end through. */
  private walk(backend: GrammarBackend, matcher: GrammarMatcher, tokens: Int32Array): boolean {
    const mask = new Int32Array(backend.maskWords);
    for (const token of tokens) {
      const started = performance.now();
      if (!hasMask(backend, matcher, mask) || !isSet(mask, token)) return false;
      matcher.advance([token]);
      backend.wait([matcher], MASK_DEADLINE_MS);
      this.masks.push((performance.now() - started) * 1000);
    }
    return hasMask(backend, matcher, mask) && this.config.model.eosTokenIds.some((id) => isSet(mask, id));
  }
}

function hasMask(backend: GrammarBackend, matcher: GrammarMatcher, mask: Int32Array): boolean {
  backend.wait([matcher], MASK_DEADLINE_MS);
  if (matcher.status !== 'open' && matcher.status !== 'complete') return false;
  backend.copyMasks([matcher], mask);
  return true;
}

async function compiled(grammar: Grammar): Promise<Grammar> {
  while (grammar.status === 'compiling') await Bun.sleep(1);
  return grammar;
}

function isLoose({ kind, text }: GrammarSpec, schema: unknown): boolean {
  if (kind !== 'json_schema') return inexactKeyword(schema) !== null;
  return (JSON.parse(text) as { 'x-guidance': { lenient: boolean } })['x-guidance'].lenient;
}

/** The first line of a message, without what is special in the schema. */
function reasonOf({ message }: ValidationError): string {
  const [line = ''] = message.split('\n');
  return line.replace(/"[^"]*"|\d+/g, '…').slice(0, 100);
}
