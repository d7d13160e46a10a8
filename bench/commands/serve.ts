import { readFileSync } from 'node:fs';
import { ConfigError, UsageError } from '../../src/config/config-error.ts';
import type { FlagTable, FlagValuesOf } from '../../src/config/flags/flag.ts';
import { createTokenizer } from '../../src/tokenizer/create-tokenizer.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { arrivalTimes, Gate } from '../load/arrivals.ts';
import { customDataset, randomDataset, shareGptDataset } from '../load/dataset.ts';
import { LATENCY_METRICS, type LatencyMetric, type ServeMetrics, serveMetrics } from '../load/serve-metrics.ts';
import { type Backend, type RequestResult, type SampleRequest, Target } from '../load/target.ts';
import { seededRandom } from '../random.ts';
import { writeResult } from '../results.ts';
import { formatTable, shortNumber } from '../table.ts';

/** Without a tokenizer: ids that every vocabulary has. */
const SMALLEST_VOCABULARY = 2000;

const SERVE_FLAGS = {
  backend: {
    type: 'string',
    choices: ['openai', 'openai-chat', 'vllm'],
    default: 'openai',
    help: 'openai and vllm: /v1/completions, openai-chat: /v1/chat/completions.',
  },
  'base-url': { type: 'string', default: null, metavar: 'URL', help: 'The server, in place of host and port.' },
  host: { type: 'string', default: '127.0.0.1', help: 'Its address.' },
  port: { type: 'int', default: 8000, min: 1, max: 65535, help: 'Its port.' },
  endpoint: { type: 'string', default: null, metavar: 'PATH', help: "The API's path; by default the backend's." },
  model: { type: 'string', default: null, help: 'Name of the model; by default the first that the server lists.' },
  tokenizer: {
    type: 'string',
    default: null,
    metavar: 'FOLDER',
    help: 'Model folder whose tokenizer makes and counts prompts; without one, random prompts are token ids.',
  },
  'api-key': { type: 'string', default: null, env: 'OPENAI_API_KEY', secret: true, help: 'Key for the server.' },
  'dataset-name': {
    type: 'string',
    choices: ['random', 'sharegpt', 'custom'],
    default: 'random',
    help: 'The prompts.',
  },
  'dataset-path': { type: 'string', default: null, metavar: 'FILE', help: 'File of sharegpt and custom.' },
  'num-prompts': { type: 'int', default: 1000, min: 1, help: 'Requests.' },
  'random-input-len': { type: 'tokens', default: 1024, min: 1, help: 'Tokens of a random prompt.' },
  'random-output-len': { type: 'tokens', default: 128, min: 1, help: 'Tokens generated for it.' },
  'random-range-ratio': {
    type: 'float',
    default: 0,
    min: 0,
    max: 1,
    help: 'Lengths vary by this share to both sides.',
  },
  'random-prefix-len': { type: 'tokens', default: 0, min: 0, help: 'Tokens that all random prompts begin with.' },
  'sharegpt-output-len': {
    type: 'tokens',
    default: null,
    min: 1,
    help: "Tokens to generate; by default the answer's.",
  },
  'custom-output-len': {
    type: 'tokens',
    default: null,
    min: 1,
    help: "Tokens to generate; by default the line's, or 256.",
  },
  'request-rate': { type: 'string', default: 'inf', metavar: 'RATE', help: 'Requests a second; inf: all at once.' },
  burstiness: { type: 'float', default: 1, help: 'Shape of the gaps between requests: 1 Poisson, less is burstier.' },
  'max-concurrency': { type: 'int', default: null, min: 1, help: 'Most requests at once.' },
  seed: { type: 'int', default: 0, min: 0, help: 'Of prompts and arrivals.' },
  goodput: {
    type: 'list',
    default: [],
    metavar: 'METRIC:MS',
    help: 'Limits that a good request keeps: ttft:200 tpot:50 e2el:5000.',
  },
  'percentile-metrics': {
    type: 'list',
    default: ['ttft', 'tpot', 'itl', 'e2el'],
    separator: ',',
    metavar: 'METRICS',
    help: 'Metrics to report: ttft, tpot, itl, e2el.',
  },
  'metric-percentiles': {
    type: 'list',
    default: ['99'],
    separator: ',',
    metavar: 'PERCENTS',
    help: 'Their percentiles.',
  },
  'ignore-eos': { type: 'boolean', default: false, help: 'Generate to the full length.' },
  'extra-body': { type: 'json', default: {}, help: 'Fields for every request.' },
  'num-warmups': { type: 'int', default: 0, min: 0, help: 'Requests before the measured ones.' },
  'save-result': { type: 'boolean', default: false, help: 'Write the result into result-dir.' },
  'result-dir': { type: 'string', default: '.', metavar: 'FOLDER', help: 'Where save-result writes.' },
  'result-filename': {
    type: 'string',
    default: null,
    metavar: 'FILE',
    help: 'Its name, by default one with the date.',
  },
  ...OUTPUT_JSON,
} as const satisfies FlagTable;

export type ServeFlags = FlagValuesOf<typeof SERVE_FLAGS>;

const ENDPOINTS: Record<Backend, string> = {
  openai: '/v1/completions',
  vllm: '/v1/completions',
  'openai-chat': '/v1/chat/completions',
};

/** The JSON of `bun bench serve`: vLLM's fields. */
export interface ServeFigures extends ServeMetrics {
  backend: string;
  model_id: string;
  tokenizer_id: string | null;
  num_prompts: number;
  request_rate: number | 'inf';
  burstiness: number;
  max_concurrency: number | null;
  /** Seconds. */
  duration: number;
}

/** Runs the load and gives its figures. Throws UsageError for flags that contradict each other, ConfigError for a server that is not there. */
export async function measureServe(flags: ServeFlags): Promise<ServeFigures> {
  const selection = {
    metrics: flags.percentileMetrics.map(latencyMetric),
    percentiles: flags.metricPercentiles.map(percentOf),
    goodput: parseGoodput(flags.goodput),
  };
  const requestRate = parseRate(flags.requestRate);
  if (!(flags.burstiness > 0)) throw new UsageError(`--burstiness must be above 0, not ${flags.burstiness}.`);
  const baseUrl = new URL(flags.baseUrl ?? `http://${flags.host}:${flags.port}`);
  const model = flags.model ?? (await firstModel(baseUrl, flags.apiKey));
  const tokenizer = flags.tokenizer === null ? null : await createTokenizer(flags.tokenizer, { mode: 'auto' });
  const requests = loadDataset(flags, tokenizer);
  const target = new Target({
    backend: flags.backend,
    baseUrl,
    endpoint: flags.endpoint ?? ENDPOINTS[flags.backend],
    model,
    apiKey: flags.apiKey,
    ignoreEos: flags.ignoreEos,
    extraBody: flags.extraBody,
  });
  try {
    await checkTarget(target, requests[0]!, flags.numWarmups);
    const arrivals = arrivalTimes(requests.length, requestRate, flags.burstiness, seededRandom(flags.seed + 1));
    const { results, duration } = await runLoad(target, requests, arrivals, flags.maxConcurrency);
    return {
      backend: flags.backend,
      model_id: model,
      tokenizer_id: flags.tokenizer,
      num_prompts: flags.numPrompts,
      request_rate: Number.isFinite(requestRate) ? requestRate : 'inf',
      burstiness: flags.burstiness,
      max_concurrency: flags.maxConcurrency,
      duration,
      ...serveMetrics(results, duration, selection),
    };
  } finally {
    target.close();
  }
}

async function runLoad(
  target: Target,
  requests: readonly SampleRequest[],
  arrivals: readonly number[],
  maxConcurrency: number | null,
): Promise<{ results: RequestResult[]; duration: number }> {
  const gate = new Gate(maxConcurrency ?? Number.POSITIVE_INFINITY);
  const started = performance.now();
  const results = await Promise.all(
    requests.map(async (request, index) => {
      const waitMs = arrivals[index]! * 1000 - (performance.now() - started);
      if (waitMs > 0) await Bun.sleep(waitMs);
      return gate.run(() => target.send(request));
    }),
  );
  return { results, duration: (performance.now() - started) / 1000 };
}

/** One request that must succeed, so that a wrong address is one sentence and not a thousand failures. */
async function checkTarget(target: Target, request: SampleRequest, numWarmups: number): Promise<void> {
  const first = await target.send(request);
  if (!first.success) throw new ConfigError(`The server does not answer the first request: ${first.error}`);
  for (let i = 1; i < numWarmups; i++) await target.send(request);
}

function loadDataset(flags: ServeFlags, tokenizer: Tokenizer | null): SampleRequest[] {
  if (flags.datasetName === 'random') {
    if (flags.backend === 'openai-chat' && tokenizer === null) {
      throw new UsageError(
        '--backend openai-chat with random prompts needs --tokenizer FOLDER: a chat takes text only.',
      );
    }
    const options = {
      inputLen: flags.randomInputLen,
      outputLen: flags.randomOutputLen,
      rangeRatio: flags.randomRangeRatio,
      prefixLen: flags.randomPrefixLen,
    };
    const vocabSize = tokenizer?.vocabSize ?? SMALLEST_VOCABULARY;
    return randomDataset(flags.numPrompts, options, vocabSize, tokenizer, seededRandom(flags.seed));
  }
  if (flags.datasetPath === null)
    throw new UsageError(`--dataset-name ${flags.datasetName} needs --dataset-path FILE.`);
  const text = readFile(flags.datasetPath);
  if (flags.datasetName === 'custom') return customDataset(text, flags.numPrompts, flags.customOutputLen);
  const countTokens =
    tokenizer === null ? null : (words: string) => tokenizer.encode(words, { addSpecialTokens: false }).length;
  return shareGptDataset(text, flags.numPrompts, flags.sharegptOutputLen, countTokens);
}

function readFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError(`--dataset-path: ${(error as Error).message}.`);
  }
}

async function firstModel(baseUrl: URL, apiKey: string | null): Promise<string> {
  const url = new URL(`${baseUrl.pathname.replace(/\/$/, '')}/v1/models`, baseUrl);
  try {
    const response = await fetch(url, { headers: apiKey === null ? {} : { Authorization: `Bearer ${apiKey}` } });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const { data } = (await response.json()) as { data?: { id: string }[] };
    const first = data?.[0];
    if (first === undefined) throw new Error('an empty list');
    return first.id;
  } catch (error) {
    throw new ConfigError(
      `${url} names no model (${(error as Error).message}); is the server up? --model names one too.`,
    );
  }
}

export function parseRate(text: string): number {
  const rate = text.toLowerCase() === 'inf' ? Number.POSITIVE_INFINITY : Number(text);
  if (!(rate > 0)) throw new UsageError(`--request-rate takes a number above 0 or inf, not "${text}".`);
  return rate;
}

/** Throws UsageError for what is not METRIC:MS. */
export function parseGoodput(limits: readonly string[]): Partial<Record<LatencyMetric, number>> {
  return Object.fromEntries(
    limits.map((limit) => {
      const [name = '', value = ''] = limit.split(':');
      const ms = Number(value);
      if (value === '' || !(ms >= 0)) throw new UsageError(`--goodput takes METRIC:MS, not "${limit}".`);
      return [latencyMetric(name), ms];
    }),
  );
}

function latencyMetric(name: string): LatencyMetric {
  const metric = LATENCY_METRICS.find((known) => known === name);
  if (metric === undefined) throw new UsageError(`"${name}" is no metric: choose of ${LATENCY_METRICS.join(', ')}.`);
  return metric;
}

function percentOf(text: string): number {
  const percent = Number(text);
  if (!(percent >= 0 && percent <= 100)) throw new UsageError(`--metric-percentiles takes 0 to 100, not "${text}".`);
  return percent;
}

export function serveTable(figures: ServeFigures, flags: Pick<ServeFlags, 'percentileMetrics' | 'metricPercentiles'>) {
  const goodput =
    figures.request_goodput === null ? [] : [['Good requests a second', shortNumber(figures.request_goodput)]];
  const totals = [
    ['Requests done / failed', `${figures.completed} / ${figures.failed}`],
    ['Duration, s', figures.duration.toFixed(2)],
    ['Tokens in / out', `${figures.total_input_tokens} / ${figures.total_output_tokens}`],
    ['Requests a second', shortNumber(figures.request_throughput)],
    ...goodput,
    ['Output tokens a second', shortNumber(figures.output_throughput)],
    ['All tokens a second', shortNumber(figures.total_token_throughput)],
  ];
  const columns = ['mean', 'median', ...flags.metricPercentiles.map((percent) => `p${percent}`)];
  const rows = flags.percentileMetrics.map((metric) => [
    metric.toUpperCase(),
    ...columns.map((column) => shortNumber(figures[`${column}_${metric}_ms`] ?? 0)),
  ]);
  return `${formatTable(['Load', ''], totals)}\n${formatTable(['Milliseconds', ...columns], rows)}`;
}

function savePath(flags: ServeFlags, model: string): string | null {
  if (!flags.saveResult) return null;
  const stamp = new Date().toISOString().replace(/[-:]|\.\d+Z/g, '');
  const name =
    flags.resultFilename ?? `${flags.backend}-${flags.requestRate}qps-${model.replaceAll('/', '-')}-${stamp}.json`;
  return `${flags.resultDir}/${name}`;
}

export const serve = defineCommand({
  name: 'serve',
  doc: 'Load on an OpenAI-compatible server: throughput and latencies.',
  flags: SERVE_FLAGS,
  takesEngineFlags: false,
  async run(flags) {
    const figures = await measureServe(flags);
    process.stdout.write(serveTable(figures, flags));
    await writeResult(flags.outputJson, 'serve', figures);
    await writeResult(savePath(flags, figures.model_id), 'serve', figures);
  },
});
