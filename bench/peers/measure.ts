import type { BaoConfig } from '../../src/config/bao-config.ts';
import type { Limits } from '../limit-meter.ts';
import { higherLimits, limitsAround, openLimitMeter } from '../limits.ts';
import { modelCost } from '../offline/model-cost.ts';
import { limitTokensPerS, type PeerMeasurement, type PeerRow, type PeersFigures } from './figures.ts';
import type { Peer, PeerWorkload } from './peer.ts';
import { PeerRun, type PeerRunOptions } from './peer-run.ts';

/**
 * The figures after each load, whose rows are the last ones: the whole takes many minutes. Limits are those around the load, while all engines are paused.
 *
 * @throws what PeerRun.start does, and the signal's reason
 */
export async function* measurePeers(
  peers: readonly Peer[],
  workload: PeerWorkload,
  measurements: readonly PeerMeasurement[],
  options: PeerRunOptions,
  config: BaoConfig,
): AsyncGenerator<Omit<PeersFigures, 'model'>> {
  const { quantization, threads } = workload;
  const cost = await modelCost(config);
  // Before any engine takes memory, of which it wants some.
  const meter = await openLimitMeter({ ...config.device, dtype: config.model.dtype });
  try {
    const run = await PeerRun.start(peers, workload, options);
    try {
      const rows: PeerRow[] = [];
      let highest: Limits = { read_gbps: 0, gflops: 0 };
      for (const [index, measurement] of measurements.entries()) {
        const { value: outcomes, limits } = await limitsAround(meter, () => run.measure(measurement));
        rows.push(...outcomes.map((row) => ({ ...row, limit_tokens_per_s: limitTokensPerS(row, cost, limits) })));
        highest = higherLimits(highest, limits);
        yield {
          ...{ quantization, threads },
          complete: index === measurements.length - 1,
          versions: run.versions,
          ready_s: run.readySeconds,
          rows: [...rows],
          limit_read_gbps: highest.read_gbps,
          limit_gflops: highest.gflops,
        };
      }
    } finally {
      await run.close();
    }
  } finally {
    meter.close();
  }
}
