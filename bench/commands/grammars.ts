import { EngineArgs } from '../../src/config/engine-args.ts';
import { configureLogging } from '../../src/logging/logger.ts';
import type { GrammarBackend, GrammarMatcher } from '../../src/structured-output/grammar.ts';
import { grammarSpec } from '../../src/structured-output/grammar-spec.ts';
import { GuidanceBackend } from '../../src/structured-output/guidance-backend.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { isSet } from '../grammars/mask.ts';
import { type InstanceFigures, measureInstances } from '../grammars/measure-instances.ts';
import { randomSchema } from '../grammars/random-schema.ts';
import { type Random, randomInt, seededRandom } from '../random.ts';
import { writeResult } from '../results.ts';
import { median, percentile } from '../statistics.ts';
import { formatPairs, shortNumber } from '../table.ts';

const OPTIONS = { disableAnyWhitespace: true, disableAdditionalProperties: false, whitespacePattern: null };
/** A mask that takes longer counts as that long. */
const MASK_DEADLINE_MS = 10_000;
/** Longer walks through a grammar are given up. */
const MAX_TOKENS = 200;
const DEFAULT_SCHEMAS = 200;
const BACKENDS = ['auto', 'guidance', 'xgrammar'] as const;

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
  let started = performance.now();
  while (times.length < MAX_TOKENS) {
    backend.wait([matcher], MASK_DEADLINE_MS);
    times.push((performance.now() - started) * 1000);
    backend.copyMasks([matcher], mask);
    const allowed = Array.from({ length: mask.length * 32 }, (_, id) => id).filter((id) => isSet(mask, id));
    if (matcher.status !== 'open') break;
    started = performance.now();
    matcher.advance([allowed[randomInt(random, 0, allowed.length - 1)]!]);
  }
  return times;
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

function instanceTable(figures: InstanceFigures): string {
  const ms = (value: number) => `${shortNumber(value)} ms`;
  const us = (value: number) => `${shortNumber(value)} µs`;
  const share = (value: number, of: number) => `${(100 * value).toFixed(2)} % of ${of}`;
  return formatPairs([
    ['Engine', `${figures.backend}${figures.strict ? ', strict' : ''}`],
    ['Instances', figures.indent === 0 ? 'on one line' : `laid out by ${figures.indent}`],
    ['Vocabulary', `${figures.vocab_size} tokens`],
    ['Schemas', `${figures.num_schemas}: ${figures.num_accepted} accepted, ${figures.num_refused} refused`],
    ['Of those accepted', `${figures.num_loose} read loosely, ${figures.num_xgrammar} by XGrammar`],
    [
      'Compile',
      `p50 ${ms(figures.compile_p50_ms)}, p99 ${ms(figures.compile_p99_ms)}, worst ${ms(figures.compile_max_ms)}`,
    ],
    [
      `Mask and step, ${figures.num_masks} tokens`,
      `p50 ${us(figures.mask_p50_us)}, p99 ${us(figures.mask_p99_us)}, worst ${us(figures.mask_max_us)}`,
    ],
    ['Valid instances accepted', share(figures.valid_accepted, figures.num_valid)],
    ['Invalid instances rejected', share(figures.invalid_rejected, figures.num_invalid)],
    ...Object.entries(figures.refusals).map(([reason, count]) => [`Refused, ${count}`, reason] as const),
  ]);
}

export const grammars = defineCommand({
  name: 'grammars',
  doc: 'Compiles JSON schemas one after another and makes the masks of walks through them: random schemas and walks, or those of a folder.',
  flags: {
    model: { type: 'string', default: 'demo', help: 'Whose vocabulary.' },
    instances: {
      type: 'string',
      default: null,
      metavar: 'FOLDER',
      help: 'JSON files of {"schema", "tests": [{"valid", "data"}]}, as those of MaskBench.',
    },
    backend: {
      type: 'string',
      choices: BACKENDS,
      default: 'auto',
      help: 'Of --instances: the engine, as in --structured-outputs-config.',
    },
    strict: { type: 'boolean', default: false, help: 'Of --instances: schemas are as with "strict": true.' },
    indent: {
      type: 'int',
      default: 0,
      min: 0,
      help: 'Of --instances: spaces a level by which they are laid out; 0: on one line.',
    },
    'num-schemas': {
      type: 'int',
      default: null,
      min: 1,
      help: `Schemas, after one that warms up: ${DEFAULT_SCHEMAS} random ones, or of a folder all, where it is not given.`,
    },
    seed: { type: 'int', default: 0, help: 'Of random schemas and walks, and of the choice among files.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: false,
  async run(values) {
    const { model, instances: folder, backend, strict, indent, numSchemas, seed } = values;
    configureLogging({ level: 'error' });
    if (folder === null) {
      const figures = await measureGrammars(model, numSchemas ?? DEFAULT_SCHEMAS, seed);
      process.stdout.write(grammarTable(figures));
      await writeResult(values.outputJson, 'grammars', figures);
      return;
    }
    const config = await new EngineArgs({ model }).createEngineConfig();
    const figures = await measureInstances(config, { folder, backend, strict, indent, numSchemas, seed });
    process.stdout.write(instanceTable(figures));
    await writeResult(values.outputJson, 'grammars', figures);
  },
});
