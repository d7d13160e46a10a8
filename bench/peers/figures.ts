import type { Limits } from '../limit-meter.ts';
import type { ModelCost } from '../offline/model-cost.ts';
import type { PeerBatch } from './peer.ts';

/** What of a batch is looked at: its prompts, its output once all sequences run, or its output over the whole time, as clients see it. */
export type PeerAspect = 'prefill' | 'decode' | 'streams';

export interface PeerMeasurement extends PeerBatch {
  aspect: PeerAspect;
}

/** A load and the engine that got it. */
interface PeerLoad {
  peer: string;
  aspect: PeerAspect;
  batch_size: number;
  /** Of each stream, one after another; 1 in older files, which do not have it, and for other loads. */
  requests_each?: number;
  input_len: number;
  output_len: number;
}

export interface MeasuredRow extends PeerLoad {
  /** Median of the rounds. */
  tokens_per_s: number;
  tokens_per_s_rounds: number[];
}

export interface FailedRow extends PeerLoad {
  /** Why there is no figure. */
  error: string;
}

export type PeerOutcome = MeasuredRow | FailedRow;

export type PeerRow = PeerOutcome & {
  /** What the machine's limits allow; null for streams, whose time goes elsewhere too. */
  limit_tokens_per_s: number | null;
};

/** The JSON of `bun bench peers`, written after each load. */
export interface PeersFigures {
  model: string;
  quantization: string;
  threads: number;
  /** false: loads are missing, as the run goes on or was cut off. Older files are complete without saying so. */
  complete: boolean;
  versions: Record<string, string>;
  /** Seconds from the process's start until it takes prompts; one start. None of an engine that did not get so far. */
  ready_s: Record<string, number>;
  rows: PeerRow[];
  /** The highest of the run. */
  limit_read_gbps: number;
  limit_gflops: number;
}

export function isMeasured<Row extends PeerOutcome>(row: Row): row is Row & MeasuredRow {
  return 'tokens_per_s' in row;
}

/** What was measured, in words. */
export function rowTitle(row: PeerLoad): string {
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
export function limitTokensPerS(row: PeerLoad, cost: ModelCost, limits: Limits): number | null {
  if (row.aspect === 'streams') return null;
  const computing = (limits.gflops * 1e9) / cost.flopsPerToken;
  if (row.aspect === 'prefill') return computing;
  const bytes = cost.weightBytes / row.batch_size + cost.kvBytes(row.input_len + row.output_len / 2);
  return Math.min(computing, (limits.read_gbps * 1e9) / bytes);
}
