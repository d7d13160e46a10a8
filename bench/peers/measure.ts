import type { Limits } from '../limit-meter.ts';
import type { ModelCost } from '../offline/model-cost.ts';
import { median } from '../statistics.ts';
import type { Peer, PeerBatch, PeerSession, PeerWorkload } from './peer.ts';
import { type BatchRates, batchRates } from './rates.ts';

/** What of a batch is looked at: its prompts, its output once all sequences run, or its output over the whole time, as clients see it. */
export type PeerAspect = 'prefill' | 'decode' | 'streams';

export interface PeerMeasurement extends PeerBatch {
  aspect: PeerAspect;
}

export interface PeerRow {
  peer: string;
  aspect: PeerAspect;
  batch_size: number;
  input_len: number;
  output_len: number;
  /** Median of the rounds. */
  tokens_per_s: number;
  tokens_per_s_rounds: number[];
  /** What the machine's limits allow; null for streams, whose time goes elsewhere too. */
  limit_tokens_per_s: number | null;
}

export type MeasuredRow = Omit<PeerRow, 'limit_tokens_per_s'>;

/** The JSON of `bun bench peers`. */
export interface PeersFigures {
  model: string;
  quantization: string;
  threads: number;
  versions: Record<string, string>;
  /** Seconds from the process's start until it takes prompts; one start. */
  ready_s: Record<string, number>;
  rows: PeerRow[];
  limit_read_gbps: number;
  limit_gflops: number;
}

const RATE_OF: Readonly<Record<PeerAspect, keyof BatchRates>> = {
  prefill: 'prefill',
  decode: 'decode',
  streams: 'output',
};

/**
 * Peers take turns, round by round, so that what else the machine does hits all alike; a first round warms up. All of them stay loaded meanwhile.
 * Those that can't run the workload sit out. `onRows` hears of each measurement when it is done: the whole takes many minutes.
 */
export async function measurePeers(
  peers: readonly Peer[],
  workload: PeerWorkload,
  measurements: readonly PeerMeasurement[],
  rounds: number,
  onRows: (rows: readonly MeasuredRow[]) => void = () => {},
): Promise<Pick<PeersFigures, 'versions' | 'ready_s'> & { rows: MeasuredRow[] }> {
  const versions: Record<string, string> = {};
  const sessions = new Map<string, PeerSession>();
  try {
    for (const peer of peers) {
      const version = await peer.version(workload);
      if (version === null) continue;
      versions[peer.name] = version;
      sessions.set(peer.name, await peer.start(workload));
    }
    const rows: MeasuredRow[] = [];
    for (const measurement of measurements) {
      const measured = await takeTurns(sessions, measurement, rounds);
      rows.push(...measured);
      onRows(measured);
    }
    const ready = [...sessions].map(([name, { readySeconds }]) => [name, readySeconds]);
    return { versions, ready_s: Object.fromEntries(ready), rows };
  } finally {
    for (const session of sessions.values()) await session.close();
  }
}

async function takeTurns(
  sessions: ReadonlyMap<string, PeerSession>,
  { aspect, ...batch }: PeerMeasurement,
  rounds: number,
): Promise<MeasuredRow[]> {
  const measured = new Map([...sessions.keys()].map((name) => [name, [] as number[]]));
  for (let round = 0; round <= rounds; round++) {
    for (const [name, session] of sessions) {
      const rates = batchRates(batch, await session.run(batch));
      if (round > 0) measured.get(name)!.push(rates[RATE_OF[aspect]]);
    }
  }
  return [...measured].map(([peer, values]) => ({
    peer,
    aspect,
    batch_size: batch.batchSize,
    input_len: batch.inputLen,
    output_len: batch.outputLen,
    tokens_per_s: median(values),
    tokens_per_s_rounds: values,
  }));
}

/** What was measured, in words. */
export function rowTitle(row: MeasuredRow): string {
  switch (row.aspect) {
    case 'prefill':
      return `prefill ${row.input_len}`;
    case 'decode':
      return `decode, batch ${row.batch_size}`;
    case 'streams':
      return `${row.batch_size} ${row.batch_size === 1 ? 'stream' : 'streams'}, ${row.input_len} in, ${row.output_len} out`;
  }
}

/** The most tokens a second that the limits allow: each costs its operations, and each step of a decode its weights, keys and values. */
export function limitTokensPerS(row: MeasuredRow, cost: ModelCost, limits: Limits): number | null {
  if (row.aspect === 'streams') return null;
  const computing = (limits.gflops * 1e9) / cost.flopsPerToken;
  if (row.aspect === 'prefill') return computing;
  const bytes = cost.weightBytes / row.batch_size + cost.kvBytes(row.input_len + row.output_len / 2);
  return Math.min(computing, (limits.read_gbps * 1e9) / bytes);
}
