/**
 * Writes deploy/grafana/bao.json: a Grafana board over the metrics, which are vLLM's, so it also works for vLLM, and vLLM's boards work here.
 * `bun scripts/grafana-board.ts`
 */
import { join, resolve } from 'node:path';

export const BOARD_PATH = join(resolve(import.meta.dir, '..'), 'deploy/grafana/bao.json');

const SELECT = 'model_name="$model_name"';
const RATE = '[$__rate_interval]';

interface Query {
  expr: string;
  legend: string;
}

interface Panel {
  title: string;
  unit: string;
  description: string;
  queries: Query[];
}

/** Quantiles and mean of a histogram in seconds. */
function latency(metric: string): Query[] {
  const quantile = (q: number) => ({
    expr: `histogram_quantile(${q}, sum by (le) (rate(${metric}_bucket{${SELECT}}${RATE})))`,
    legend: `p${q * 100}`,
  });
  const mean = {
    expr: `sum(rate(${metric}_sum{${SELECT}}${RATE})) / sum(rate(${metric}_count{${SELECT}}${RATE}))`,
    legend: 'mean',
  };
  return [quantile(0.5), quantile(0.9), quantile(0.99), mean];
}

const perEngine = (metric: string, legend: string): Query => ({
  expr: `sum by (engine) (${metric}{${SELECT}})`,
  legend: `${legend}, core {{engine}}`,
});

const rate = (metric: string, legend: string): Query => ({ expr: `sum(rate(${metric}{${SELECT}}${RATE}))`, legend });

const PANELS: Panel[] = [
  {
    title: 'Requests',
    unit: 'short',
    description: 'Requests that run and that wait.',
    queries: [perEngine('vllm:num_requests_running', 'running'), perEngine('vllm:num_requests_waiting', 'waiting')],
  },
  {
    title: 'Token throughput',
    unit: 'short',
    description: 'Tokens a second: prompts and generation.',
    queries: [rate('vllm:prompt_tokens_total', 'prompt'), rate('vllm:generation_tokens_total', 'generation')],
  },
  {
    title: 'KV cache use',
    unit: 'percentunit',
    description: 'Share of KV cache blocks in use.',
    queries: [perEngine('vllm:kv_cache_usage_perc', 'used')],
  },
  {
    title: 'Prefix cache hit rate',
    unit: 'percentunit',
    description: 'Share of looked-up prompt tokens that were found.',
    queries: [
      {
        expr: `sum(rate(vllm:prefix_cache_hits_total{${SELECT}}${RATE})) / sum(rate(vllm:prefix_cache_queries_total{${SELECT}}${RATE}))`,
        legend: 'hit rate',
      },
    ],
  },
  {
    title: 'Time to first token',
    unit: 's',
    description: 'From arrival to the first token.',
    queries: latency('vllm:time_to_first_token_seconds'),
  },
  {
    title: 'Inter-token latency',
    unit: 's',
    description: 'Between two tokens of a request.',
    queries: latency('vllm:inter_token_latency_seconds'),
  },
  {
    title: 'End-to-end latency',
    unit: 's',
    description: 'From arrival to the last token.',
    queries: latency('vllm:e2e_request_latency_seconds'),
  },
  {
    title: 'Queue time',
    unit: 's',
    description: 'From arrival to the first step.',
    queries: latency('vllm:request_queue_time_seconds'),
  },
  {
    title: 'Prefill time',
    unit: 's',
    description: 'From the first step to the first token.',
    queries: latency('vllm:request_prefill_time_seconds'),
  },
  {
    title: 'Decode time',
    unit: 's',
    description: 'From the first to the last token.',
    queries: latency('vllm:request_decode_time_seconds'),
  },
  {
    title: 'Finished requests',
    unit: 'reqps',
    description: 'By the reason of their end.',
    queries: [
      {
        expr: `sum by (finished_reason) (rate(vllm:request_success_total{${SELECT}}${RATE}))`,
        legend: '{{finished_reason}}',
      },
    ],
  },
  {
    title: 'Preemptions and refusals',
    unit: 'reqps',
    description: 'Requests that lost their blocks for a while; requests refused because the queue was full.',
    queries: [rate('vllm:num_preemptions_total', 'preempted'), rate('vllm:admission_rejections_total', 'refused')],
  },
  {
    title: 'Tokens in a step',
    unit: 'short',
    description: 'Prompt and generation tokens that one step computes.',
    queries: latency('vllm:iteration_tokens_total'),
  },
  {
    title: 'HTTP requests',
    unit: 'reqps',
    description: 'By route and status.',
    queries: [
      { expr: `sum by (handler, status) (rate(http_requests_total${RATE}))`, legend: '{{handler}} {{status}}' },
    ],
  },
];

const WIDTH = 12;
const HEIGHT = 8;

function toGrafana(panel: Panel, index: number): object {
  return {
    id: index + 1,
    type: 'timeseries',
    title: panel.title,
    description: panel.description,
    datasource: { type: 'prometheus', uid: '$datasource' },
    gridPos: { x: (index % 2) * WIDTH, y: Math.floor(index / 2) * HEIGHT, w: WIDTH, h: HEIGHT },
    fieldConfig: { defaults: { unit: panel.unit, min: 0 }, overrides: [] },
    options: { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi' } },
    targets: panel.queries.map(({ expr, legend }, i) => ({
      refId: String.fromCharCode(65 + i),
      expr,
      legendFormat: legend,
      datasource: { type: 'prometheus', uid: '$datasource' },
    })),
  };
}

/** The board's JSON. */
export function renderBoard(): string {
  const board = {
    uid: 'bao-serving',
    title: 'Bao',
    tags: ['llm', 'bao', 'vllm'],
    schemaVersion: 39,
    refresh: '10s',
    time: { from: 'now-15m', to: 'now' },
    templating: {
      list: [
        { name: 'datasource', type: 'datasource', query: 'prometheus' },
        {
          name: 'model_name',
          type: 'query',
          datasource: { type: 'prometheus', uid: '$datasource' },
          query: 'label_values(vllm:num_requests_running, model_name)',
          refresh: 2,
        },
      ],
    },
    panels: PANELS.map(toGrafana),
  };
  return `${JSON.stringify(board, null, 2)}\n`;
}

if (import.meta.main) await Bun.write(BOARD_PATH, renderBoard());
