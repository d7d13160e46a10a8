import { EngineArgs } from '../../src/config/engine-args.ts';
import { OfflineEngine } from '../../src/entrypoints/offline-engine.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { describeEngine, type EngineFacts, engineFacts } from '../engine-facts.ts';
import { fixedLengthParams } from '../offline/run-batch.ts';
import { randomTokenIds, seededRandom } from '../random.ts';
import { writeResult } from '../results.ts';
import { formatPairs, shortNumber } from '../table.ts';

/** The JSON of `bun bench throughput`, in vLLM's names. */
export interface ThroughputFigures extends EngineFacts {
  /** Seconds. */
  elapsed_time: number;
  num_requests: number;
  /** Prompts and output together. */
  total_num_tokens: number;
  total_output_tokens: number;
  requests_per_second: number;
  tokens_per_second: number;
  output_tokens_per_second: number;
}

export const throughput = defineCommand({
  name: 'throughput',
  doc: 'All requests given to the engine at once, without HTTP: requests and tokens a second.',
  flags: {
    'num-prompts': { type: 'int', default: 1000, min: 1, help: 'Requests.' },
    'input-len': { type: 'tokens', default: 128, min: 1, help: 'Tokens of each prompt, chosen at random.' },
    'output-len': { type: 'tokens', default: 128, min: 1, help: 'Tokens generated for each prompt.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: true,
  async run(values, given) {
    const engineArgs = new EngineArgs({ enablePrefixCaching: false, ...given });
    const engine = await OfflineEngine.start(engineArgs);
    try {
      const figures = await measureThroughput(engine, values);
      process.stdout.write(
        formatPairs([
          ['Model', describeEngine(figures)],
          ['Requests', `${figures.num_requests} in ${figures.elapsed_time.toFixed(2)} s`],
          ['Requests a second', shortNumber(figures.requests_per_second)],
          ['Tokens a second, in and out', shortNumber(figures.tokens_per_second)],
          ['Output tokens a second', shortNumber(figures.output_tokens_per_second)],
        ]),
      );
      await writeResult(values.outputJson, 'throughput', figures);
    } finally {
      await engine.close();
    }
  },
});

export async function measureThroughput(
  engine: OfflineEngine,
  load: { numPrompts: number; inputLen: number; outputLen: number },
): Promise<ThroughputFigures> {
  const { model } = engine.config;
  const random = seededRandom(model.seed);
  const params = { ...fixedLengthParams(load.outputLen), outputKind: 'final-only' as const };
  const requests = Array.from({ length: load.numPrompts }, () => ({
    promptTokenIds: randomTokenIds(random, load.inputLen, model.hf.vocabSize),
    params,
  }));
  const started = performance.now();
  const outputs = await engine.generate(requests);
  const elapsed = (performance.now() - started) / 1000;
  const outputTokens = outputs.reduce((sum, output) => sum + output.outputs[0]!.tokenIds.length, 0);
  const totalTokens = load.numPrompts * load.inputLen + outputTokens;
  return {
    ...engineFacts(engine.config),
    elapsed_time: elapsed,
    num_requests: load.numPrompts,
    total_num_tokens: totalTokens,
    total_output_tokens: outputTokens,
    requests_per_second: load.numPrompts / elapsed,
    tokens_per_second: totalTokens / elapsed,
    output_tokens_per_second: outputTokens / elapsed,
  };
}
