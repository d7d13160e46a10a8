import { join } from 'node:path';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';
import type { RequestOutput } from '../../src/engine/engine-client.ts';
import { OfflineEngine } from '../../src/entrypoints/offline-engine.ts';
import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../../src/sampling/sampling-params.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { readConversations, type ScoredAnswer, scoredAnswers } from '../perplexity/dataset.ts';
import { writeResult } from '../results.ts';
import { mean } from '../statistics.ts';
import { formatTable } from '../table.ts';

const CONVERSATIONS = join(import.meta.dir, '../perplexity/conversations.jsonl');
/** How `--quantizations` spells a model that isn't quantized. */
const UNQUANTIZED = 'none';

const GREEDY: SamplingParams = { ...DEFAULT_SAMPLING_PARAMS, temperature: 0, outputKind: 'final-only' };
const SCORE: SamplingParams = { ...GREEDY, maxTokens: 1, promptLogprobs: 0 };

/** One way to quantize. */
export interface PerplexityRow {
  quantization: string;
  /** e to the mean negative log probability of the answers' tokens. */
  perplexity: number;
  /** Mean absolute difference of those log probabilities from the first row's. */
  logprob_change: number;
  /** Share of greedy answers that have the tokens of the first row's. */
  equal_answers: number;
}

/** The JSON of `bun bench perplexity`. */
export interface PerplexityFigures {
  model: string;
  num_answers: number;
  num_answer_tokens: number;
  rows: PerplexityRow[];
}

/** What a model makes of the answers: log probabilities of their tokens, and its own answers as token ids. */
interface Reading {
  logprobs: number[];
  answers: number[][];
}

/**
 * Reads the conversations' answers, and answers them greedily, with each quantization in turn.
 *
 * @param quantizations what `--quantization` takes, or "none"; the others are compared with the first
 * @param maxTokens tokens of a greedy answer
 */
export async function measurePerplexity(
  given: Partial<FlagValues>,
  quantizations: readonly string[],
  dataset: string,
  maxTokens: number,
): Promise<PerplexityFigures> {
  const conversations = await readConversations(dataset);
  const readings: Reading[] = [];
  let model = '';
  for (const quantization of quantizations) {
    const args = new EngineArgs({
      ...given,
      quantization: quantization === UNQUANTIZED ? null : quantization,
      enablePrefixCaching: false,
    });
    const engine = await OfflineEngine.start(args);
    try {
      model = engine.config.model.model;
      readings.push(await read(engine, await scoredAnswers(engine.client, conversations), maxTokens));
    } finally {
      await engine.close();
    }
  }
  const [first] = readings;
  return {
    model,
    num_answers: first?.answers.length ?? 0,
    num_answer_tokens: first?.logprobs.length ?? 0,
    rows: readings.map((reading, i) => ({ quantization: quantizations[i]!, ...compare(reading, first!) })),
  };
}

async function read(engine: OfflineEngine, answers: readonly ScoredAnswer[], maxTokens: number): Promise<Reading> {
  const scored = await engine.generate(answers.map(({ tokenIds }) => ({ promptTokenIds: tokenIds, params: SCORE })));
  const params = { ...GREEDY, maxTokens };
  const own = await engine.generate(answers.map(({ promptTokenIds }) => ({ promptTokenIds, params })));
  return {
    logprobs: scored.flatMap((output, i) => answerLogprobs(output, answers[i]!.promptTokenIds.length)),
    answers: own.map((output) => output.outputs[0]!.tokenIds),
  };
}

/** Of the tokens after the first `promptLength`. */
function answerLogprobs({ promptLogprobs }: RequestOutput, promptLength: number): number[] {
  return promptLogprobs!.slice(promptLength).map((position) => position![0]!.logprob);
}

function compare(reading: Reading, first: Reading): Omit<PerplexityRow, 'quantization'> {
  const equal = reading.answers.map((answer, i) => Number(Bun.deepEquals(answer, first.answers[i])));
  return {
    perplexity: Math.exp(-mean(reading.logprobs)),
    logprob_change: mean(reading.logprobs.map((logprob, i) => Math.abs(logprob - first.logprobs[i]!))),
    equal_answers: mean(equal),
  };
}

function perplexityTable(figures: PerplexityFigures): string {
  const head = `${figures.model}: ${figures.num_answers} answers, ${figures.num_answer_tokens} tokens\n\n`;
  const rows = figures.rows.map((row) => [
    row.quantization,
    row.perplexity.toFixed(4),
    row.logprob_change.toFixed(4),
    row.equal_answers.toFixed(3),
  ]);
  return head + formatTable(['quantization', 'perplexity', 'change of logprobs', 'equal greedy answers'], rows);
}

export const perplexity = defineCommand({
  name: 'perplexity',
  doc: 'Perplexity of answers in the chat format of the model, and its own greedy answers, for each quantization.',
  flags: {
    quantizations: {
      type: 'list',
      default: [UNQUANTIZED, 'int8', 'fp8', 'int4'],
      separator: ',',
      metavar: 'NAMES',
      help: `Values of --quantization, or ${UNQUANTIZED}. The others are compared with the first.`,
    },
    conversations: {
      type: 'string',
      default: CONVERSATIONS,
      metavar: 'FILE',
      help: 'Conversations as JSON Lines of {"messages": [...]}. The default ones are of the kinds that the demo model knows.',
    },
    'output-len': { type: 'tokens', default: 128, min: 1, help: 'Tokens of a greedy answer at the most.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: true,
  async run(values, given) {
    const figures = await measurePerplexity(
      { model: 'demo', ...given },
      values.quantizations,
      values.conversations,
      values.outputLen,
    );
    process.stdout.write(perplexityTable(figures));
    await writeResult(values.outputJson, 'perplexity', figures);
  },
});
