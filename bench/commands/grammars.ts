import { EngineArgs } from '../../src/config/engine-args.ts';
import type { GrammarBackend, GrammarMatcher } from '../../src/structured-output/grammar.ts';
import { grammarSpec } from '../../src/structured-output/grammar-spec.ts';
import { GuidanceBackend } from '../../src/structured-output/guidance-backend.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { type Random, randomInt, seededRandom } from '../random.ts';
import { writeResult } from '../results.ts';
import { median, percentile } from '../statistics.ts';
import { formatPairs, shortNumber } from '../table.ts';

const OPTIONS = { disableAnyWhitespace: true, disableAdditionalProperties: false, whitespacePattern: null };
/** Longer walks through a grammar are given up. */
const MAX_TOKENS = 200;
const MAX_FIELDS = 20;

/** The JSON of `bun bench grammars`. */
export interface GrammarFigures {
  vocab_size: number;
  num_schemas: number;
  /** From the first grammar's start until it is compiled: what the vocabulary needs is made then. */
  first_compile_ms: number;
  compile_p50_ms: number;
  compile_p99_ms: number;
  num_masks: number;
  mask_p50_us: number;
  mask_p99_us: number;
}

/** Compiles random schemas one after another, and walks through each by random tokens that its masks allow. */
async function measureGrammars(model: string, numSchemas: number, seed: number): Promise<GrammarFigures> {
  const config = await new EngineArgs({ model }).createEngineConfig();
  const backend = new GuidanceBackend(config);
  await backend.registerVocabulary(await createTokenizer(config.model.tokenizerFolder!, { mode: 'auto' }));
  const random = seededRandom(seed);
  const compiles: number[] = [];
  const masks: number[] = [];
  for (let i = 0; i <= numSchemas; i++) {
    const started = performance.now();
    const grammar = backend.compile(grammarSpec({ kind: 'json', schema: randomSchema(random, i) }, OPTIONS));
    while (grammar.status === 'compiling') await Bun.sleep(0);
    compiles.push(performance.now() - started);
    const matcher = grammar.createMatcher();
    masks.push(...walk(backend, matcher, random));
    matcher.free();
    grammar.free();
  }
  const [first, ...others] = compiles;
  return {
    vocab_size: config.model.hf.vocabSize,
    num_schemas: numSchemas,
    first_compile_ms: first!,
    compile_p50_ms: median(others),
    compile_p99_ms: percentile(others, 99),
    num_masks: masks.length,
    mask_p50_us: median(masks),
    mask_p99_us: percentile(masks, 99),
  };
}

/** Microseconds of each mask. */
function walk(backend: GrammarBackend, matcher: GrammarMatcher, random: Random): number[] {
  const mask = new Int32Array(backend.maskWords);
  const times: number[] = [];
  while (times.length < MAX_TOKENS) {
    const started = performance.now();
    backend.fillMasks([matcher], mask);
    times.push((performance.now() - started) * 1000);
    const allowed = Array.from({ length: mask.length * 32 }, (_, id) => id).filter((id) => isSet(mask, id));
    if (matcher.accept(allowed[randomInt(random, 0, allowed.length - 1)]!) !== 'open') break;
  }
  return times;
}

function isSet(mask: Int32Array, id: number): boolean {
  return ((mask[id >> 5]! >> (id & 31)) & 1) === 1;
}

/** An object of 1 to 20 fields of the kinds that clients ask for; `index` makes it one that no cache has. */
function randomSchema(random: Random, index: number): object {
  const kinds: (() => object)[] = [
    () => ({ type: 'string' }),
    () => ({ type: 'string', maxLength: randomInt(random, 1, 100) }),
    () => ({ type: 'integer', minimum: randomInt(random, -100, 0), maximum: randomInt(random, 1, 10_000) }),
    () => ({ type: 'number' }),
    () => ({ type: 'boolean' }),
    () => ({ enum: Array.from({ length: randomInt(random, 1, 12) }, (_, i) => `value ${i}`) }),
    () => ({ type: 'string', pattern: `^[A-Z]{${randomInt(random, 1, 4)}}-[0-9]{1,6}$` }),
    () => ({ type: 'string', format: 'date-time' }),
    () => ({ type: 'array', items: { type: 'string' }, maxItems: randomInt(random, 1, 10) }),
    () => ({ anyOf: [{ type: 'null' }, { type: 'object', properties: { id: { type: 'integer' } } }] }),
  ];
  const names = Array.from({ length: randomInt(random, 1, MAX_FIELDS) }, (_, i) => `field_${index}_${i}`);
  return {
    type: 'object',
    properties: Object.fromEntries(names.map((name) => [name, kinds[randomInt(random, 0, kinds.length - 1)]!()])),
    required: names.filter(() => random() < 0.7),
    additionalProperties: false,
  };
}

function grammarTable(figures: GrammarFigures): string {
  const ms = (value: number) => `${shortNumber(value)} ms`;
  const us = (value: number) => `${shortNumber(value)} µs`;
  return formatPairs([
    ['Vocabulary', `${figures.vocab_size} tokens`],
    ['First compile', ms(figures.first_compile_ms)],
    [`Compile, ${figures.num_schemas} schemas`, `p50 ${ms(figures.compile_p50_ms)}, p99 ${ms(figures.compile_p99_ms)}`],
    [`Mask, ${figures.num_masks} tokens`, `p50 ${us(figures.mask_p50_us)}, p99 ${us(figures.mask_p99_us)}`],
  ]);
}

export const grammars = defineCommand({
  name: 'grammars',
  doc: 'Compiles random JSON schemas one after another and makes the masks of random walks through them.',
  flags: {
    model: { type: 'string', default: 'demo', help: 'Whose vocabulary.' },
    'num-schemas': { type: 'int', default: 200, min: 1, help: 'Schemas, after one that warms up.' },
    seed: { type: 'int', default: 0, help: 'Of schemas and walks.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: false,
  async run(values) {
    const figures = await measureGrammars(values.model, values.numSchemas, values.seed);
    process.stdout.write(grammarTable(figures));
    await writeResult(values.outputJson, 'grammars', figures);
  },
});
