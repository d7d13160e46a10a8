import { UsageError } from '../../src/config/config-error.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { availableThreads } from '../../src/device/cpu-resources.ts';
import { findLocalFolder } from '../../src/loader/model-folder.ts';
import { defineCommand, OUTPUT_JSON, parseSizes, SIZES } from '../command.ts';
import { interruptible } from '../interruption.ts';
import { bao } from '../peers/bao.ts';
import type { PeerMeasurement, PeersFigures } from '../peers/figures.ts';
import { llamaServers } from '../peers/llama-server.ts';
import { measurePeers } from '../peers/measure.ts';
import { nodeLlamaCpp } from '../peers/node-llama-cpp.ts';
import { loadSummary, peersTable } from '../peers/table.ts';
import { vllm } from '../peers/vllm.ts';
import { writeResult } from '../results.ts';

export const peers = defineCommand({
  name: 'peers',
  doc: 'The same model and load through Bao and every other engine that is installed. All are loaded, and the processes of those that wait for their turn are stopped (not on Windows).',
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
    'stream-requests': { type: 'int', default: 4, min: 1, help: 'Requests of each stream, one after another.' },
    'num-rounds': { type: 'int', default: 3, min: 1, help: 'Turns of every engine.' },
    'ready-check-timeout-sec': {
      type: 'int',
      default: 600,
      min: 1,
      help: 'Seconds that an engine may take to start; one that takes longer sits out.',
    },
    'turn-timeout-sec': {
      type: 'int',
      default: 600,
      min: 1,
      help: 'Seconds that a batch may take; an engine that takes longer gets no more of them.',
    },
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
      ...parseSizes('prefill-lens', values.prefillLens).map((inputLen) => ({
        ...({ aspect: 'prefill', batchSize: 1, requestsEach: 1, outputLen: 1 } as const),
        inputLen,
      })),
      ...parseSizes('batch-sizes', values.batchSizes).map((batchSize) => ({
        ...({ aspect: 'decode', batchSize, requestsEach: 1 } as const),
        inputLen: values.inputLen,
        outputLen: values.outputLen,
      })),
      ...parseSizes('streams', values.streams).map((batchSize) => ({
        ...({ aspect: 'streams', batchSize, requestsEach: values.streamRequests } as const),
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
    const options = {
      rounds: numRounds,
      readyTimeoutSeconds: values.readyCheckTimeoutSec,
      turnTimeoutSeconds: values.turnTimeoutSec,
    };
    await interruptible(async (signal) => {
      let figures: PeersFigures | null = null;
      try {
        for await (const loads of measurePeers(engines, workload, measurements, { ...options, signal }, config)) {
          figures = { model: values.model, ...loads };
          process.stderr.write(loadSummary(figures.rows.slice(-Object.keys(figures.versions).length)));
          await writeResult(values.outputJson, 'peers', figures);
        }
      } finally {
        // Of a run that is cut off, what there is.
        if (figures !== null) process.stdout.write(peersTable(figures));
      }
    });
  },
});
