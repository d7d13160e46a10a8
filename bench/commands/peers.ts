import { UsageError } from '../../src/config/config-error.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { availableThreads } from '../../src/device/cpu-resources.ts';
import { findLocalFolder } from '../../src/loader/model-folder.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { withLimits } from '../limits.ts';
import { modelCost } from '../offline/model-cost.ts';
import { bao } from '../peers/bao.ts';
import { llamaServers } from '../peers/llama-server.ts';
import {
  limitTokensPerS,
  type MeasuredRow,
  measurePeers,
  type PeerMeasurement,
  type PeersFigures,
  rowTitle,
} from '../peers/measure.ts';
import { nodeLlamaCpp } from '../peers/node-llama-cpp.ts';
import { vllm } from '../peers/vllm.ts';
import { writeResult } from '../results.ts';
import { formatTable, shortNumber } from '../table.ts';

const SIZES = { type: 'list', separator: ',', metavar: 'SIZES' } as const;

/** Tokens a second, a column for each engine; then how many times that of the others the first engine reaches, and its share of the machine's limit. */
export function peersTable(figures: PeersFigures): string {
  const [first, ...others] = Object.keys(figures.versions);
  const head = [
    'tokens/s',
    ...Object.entries(figures.versions).map(([name, version]) => `${name} ${version}`),
    ...others.map((name) => `${first} : ${name}`),
    `${first} of limit`,
  ];
  const rows = [...Map.groupBy(figures.rows, rowTitle)].map(([title, row]) => {
    const own = row.find(({ peer }) => peer === first)!;
    const limit = own.limit_tokens_per_s;
    return [
      title,
      ...row.map(({ tokens_per_s }) => shortNumber(tokens_per_s)),
      ...row.slice(1).map(({ tokens_per_s }) => (own.tokens_per_s / tokens_per_s).toFixed(2)),
      limit === null ? '' : `${(own.tokens_per_s / limit).toFixed(2)} of ${shortNumber(limit)}`,
    ];
  });
  const ready = Object.values(figures.ready_s);
  rows.push([
    'command to ready, s',
    ...ready.map(shortNumber),
    ...ready.slice(1).map((seconds) => (seconds / ready[0]!).toFixed(2)),
    '',
  ]);
  return formatTable(head, rows);
}

export const peers = defineCommand({
  name: 'peers',
  doc: 'The same model and load through Bao and every other engine that is installed.',
  flags: {
    model: { type: 'string', default: 'bench/shapes/0.5b', metavar: 'FOLDER', help: 'The model.' },
    'load-format': {
      type: 'string',
      choices: ['auto', 'dummy'],
      default: 'dummy',
      help: 'dummy: random weights of its shape.',
    },
    quantization: {
      type: 'string',
      choices: ['none', 'int8', 'int4'],
      default: 'none',
      help: "How weights are kept: Bao's int8 and int4 beside llama.cpp's Q8_0 and Q4_0.",
    },
    'prefill-lens': { ...SIZES, default: ['512', '2048'], help: 'Prompts whose time to the first token counts.' },
    'batch-sizes': { ...SIZES, default: ['1', '8', '16', '32'], help: 'Sequences at once whose decoding counts.' },
    streams: { ...SIZES, default: [], help: 'Streams at once whose whole time counts.' },
    'input-len': { type: 'tokens', default: 32, min: 1, help: 'Tokens of each prompt of a batch.' },
    'output-len': { type: 'tokens', default: 48, min: 2, help: 'Tokens generated for each.' },
    'stream-input-len': { type: 'tokens', default: 64, min: 1, help: "Tokens of a stream's prompt." },
    'stream-output-len': { type: 'tokens', default: 128, min: 2, help: 'Tokens generated for it.' },
    'num-rounds': { type: 'int', default: 3, min: 1, help: 'Turns of every engine.' },
    'cpu-threads': {
      type: 'int',
      default: null,
      min: 1,
      help: 'Compute threads of each engine; by default all cores.',
    },
    'vllm-python': {
      type: 'string',
      default: null,
      metavar: 'FILE',
      env: 'BAO_BENCH_VLLM_PYTHON',
      help: "Python of vLLM's environment; by default that of the vllm on the PATH.",
    },
    'node-llama-cpp': {
      type: 'string',
      default: null,
      metavar: 'FOLDER',
      env: 'BAO_BENCH_NODE_LLAMA_CPP',
      help: 'Folder whose node_modules has node-llama-cpp; by default this one.',
    },
    'llama-server': {
      type: 'list',
      separator: ',',
      default: [],
      metavar: '"NAME=FILE OPTIONS"',
      env: 'BAO_BENCH_LLAMA_SERVER',
      help: 'llama-server programs of llama.cpp and its forks, with options of theirs where they need some.',
    },
    gguf: {
      type: 'string',
      default: null,
      metavar: 'FILE',
      help: "llama.cpp's file in place of one written from the model's weights.",
    },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: false,
  async run(values) {
    const model = findLocalFolder(values.model);
    if (model === null) throw new UsageError(`--model ${values.model} is no folder with a config.json.`);
    const measurements: PeerMeasurement[] = [
      ...sizes('prefill-lens', values.prefillLens).map((inputLen) => ({
        ...({ aspect: 'prefill', batchSize: 1, outputLen: 1 } as const),
        inputLen,
      })),
      ...sizes('batch-sizes', values.batchSizes).map((batchSize) => ({
        ...({ aspect: 'decode', batchSize } as const),
        inputLen: values.inputLen,
        outputLen: values.outputLen,
      })),
      ...sizes('streams', values.streams).map((batchSize) => ({
        ...({ aspect: 'streams', batchSize } as const),
        inputLen: values.streamInputLen,
        outputLen: values.streamOutputLen,
      })),
    ];
    if (measurements.length === 0) throw new UsageError('Nothing to measure: no prefill-lens, batch-sizes or streams.');
    const { quantization, loadFormat, numRounds } = values;
    const workload = {
      model,
      dummyWeights: loadFormat === 'dummy',
      quantization,
      threads: values.cpuThreads ?? availableThreads(),
      maxModelLen: Math.max(...measurements.map(({ inputLen, outputLen }) => inputLen + outputLen)),
      maxBatchSize: Math.max(...measurements.map(({ batchSize }) => batchSize)),
    };
    const engines = [bao, nodeLlamaCpp(values), ...llamaServers(values), vllm(values)];
    const config = await new EngineArgs({
      ...{ model, loadFormat, skipTokenizerInit: true },
      ...(quantization === 'none' ? {} : { quantization }),
    }).createEngineConfig();
    const { value, limits } = await withLimits(config, () =>
      measurePeers(engines, workload, measurements, numRounds, tell),
    );
    const cost = await modelCost(config);
    const figures: PeersFigures = {
      model: values.model,
      quantization,
      threads: workload.threads,
      ...value,
      rows: value.rows.map((row) => ({ ...row, limit_tokens_per_s: limitTokensPerS(row, cost, limits) })),
      limit_read_gbps: limits.read_gbps,
      limit_gflops: limits.gflops,
    };
    process.stdout.write(peersTable(figures));
    await writeResult(values.outputJson, 'peers', figures);
  },
});

function tell(rows: readonly MeasuredRow[]): void {
  const rates = rows.map(({ peer, tokens_per_s: rate }) => `${peer} ${shortNumber(rate)}`);
  process.stderr.write(`${rowTitle(rows[0]!)}: ${rates.join(', ')} tok/s\n`);
}

function sizes(flag: string, texts: readonly string[]): number[] {
  const numbers = texts.filter((text) => text !== '').map(Number);
  if (numbers.some((size) => !Number.isInteger(size) || size < 1)) {
    throw new UsageError(`--${flag} takes whole numbers above 0, not "${texts.join(',')}".`);
  }
  return numbers;
}
