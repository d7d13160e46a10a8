import { UsageError } from '../../src/config/config-error.ts';
import { availableThreads } from '../../src/device/cpu-resources.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import { bao } from '../peers/bao.ts';
import { nodeLlamaCpp } from '../peers/node-llama-cpp.ts';
import type { Peer, PeerRates, PeerSession, PeerWorkload } from '../peers/peer.ts';
import { vllm } from '../peers/vllm.ts';
import { writeResult } from '../results.ts';
import { median } from '../statistics.ts';
import { formatTable, shortNumber } from '../table.ts';

const PEERS: readonly Peer[] = [bao, nodeLlamaCpp, vllm];

/** The JSON of `bun bench peers`: medians of the rounds. */
export interface PeersFigures {
  model: string;
  input_len: number;
  output_len: number;
  batch_sizes: number[];
  versions: Record<string, string>;
  rows: { peer: string; batch_size: number; prefill_tokens_per_s: number; decode_tokens_per_s: number }[];
}

export interface PeersPlan {
  batchSizes: readonly number[];
  inputLen: number;
  outputLen: number;
  rounds: number;
}

/** Peers take turns, round by round, so that what else the machine does hits all alike. All of them stay loaded meanwhile. */
export async function measurePeers(
  peers: readonly Peer[],
  workload: PeerWorkload,
  plan: PeersPlan,
): Promise<PeersFigures> {
  const versions: Record<string, string> = {};
  const sessions = new Map<string, PeerSession>();
  const measured = new Map<string, PeerRates[]>();
  try {
    for (const peer of peers) {
      const version = await peer.version(workload);
      if (version === null) continue;
      versions[peer.name] = version;
      sessions.set(peer.name, await peer.start(workload));
    }
    for (const batchSize of plan.batchSizes) {
      // Round 0 warms up.
      for (let round = 0; round <= plan.rounds; round++) {
        for (const [name, session] of sessions) {
          const rates = await session.run({ batchSize, inputLen: plan.inputLen, outputLen: plan.outputLen });
          const key = `${name} ${batchSize}`;
          if (round > 0) measured.set(key, [...(measured.get(key) ?? []), rates]);
        }
      }
    }
  } finally {
    for (const session of sessions.values()) await session.close();
  }
  return {
    model: workload.model,
    input_len: plan.inputLen,
    output_len: plan.outputLen,
    batch_sizes: [...plan.batchSizes],
    versions,
    rows: plan.batchSizes.flatMap((batchSize) =>
      [...sessions.keys()].map((peer) => {
        const rates = measured.get(`${peer} ${batchSize}`) ?? [];
        return {
          peer,
          batch_size: batchSize,
          prefill_tokens_per_s: median(rates.map((rate) => rate.prefillTokensPerS)),
          decode_tokens_per_s: median(rates.map((rate) => rate.decodeTokensPerS)),
        };
      }),
    ),
  };
}

export function peersTable(figures: PeersFigures): string {
  const rows = figures.rows.map((row) => [
    `${row.peer} ${figures.versions[row.peer]}`,
    String(row.batch_size),
    shortNumber(row.prefill_tokens_per_s),
    shortNumber(row.decode_tokens_per_s),
  ]);
  return formatTable(['engine', 'batch', 'prefill tok/s', 'decode tok/s'], rows);
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
    gguf: { type: 'string', default: null, metavar: 'FILE', help: 'The same model for node-llama-cpp.' },
    'batch-sizes': { type: 'list', default: ['1', '8'], separator: ',', metavar: 'SIZES', help: 'Sequences at once.' },
    'input-len': { type: 'tokens', default: 128, min: 1, help: 'Tokens of each prompt.' },
    'output-len': { type: 'tokens', default: 64, min: 2, help: 'Tokens generated for each.' },
    'num-rounds': { type: 'int', default: 3, min: 1, help: 'Turns of every engine.' },
    'cpu-threads': {
      type: 'int',
      default: null,
      min: 1,
      help: 'Compute threads of each engine; by default all cores.',
    },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: false,
  async run(values) {
    const batchSizes = values.batchSizes.map(Number);
    if (batchSizes.some((size) => !Number.isInteger(size) || size < 1)) {
      throw new UsageError(`--batch-sizes takes whole numbers above 0, not "${values.batchSizes.join(',')}".`);
    }
    const workload = {
      model: values.model,
      dummyWeights: values.loadFormat === 'dummy',
      gguf: values.gguf,
      threads: values.cpuThreads ?? availableThreads(),
      maxModelLen: values.inputLen + values.outputLen,
      maxBatchSize: Math.max(...batchSizes),
    };
    const { inputLen, outputLen, numRounds } = values;
    const figures = await measurePeers(PEERS, workload, { batchSizes, inputLen, outputLen, rounds: numRounds });
    process.stdout.write(peersTable(figures));
    await writeResult(values.outputJson, 'peers', figures);
  },
});
