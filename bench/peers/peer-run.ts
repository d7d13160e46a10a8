import { UsageError } from '../../src/config/config-error.ts';
import { DeadlineError, unlessAborted, within } from '../deadline.ts';
import { median } from '../statistics.ts';
import type { PeerAspect, PeerMeasurement, PeerOutcome } from './figures.ts';
import type { Peer, PeerBatch, PeerSession, PeerWorkload } from './peer.ts';
import { type BatchRates, batchRates } from './rates.ts';

const RATE_OF: Readonly<Record<PeerAspect, keyof BatchRates>> = {
  prefill: 'prefill',
  decode: 'decode',
  streams: 'output',
};

export interface PeerRunOptions {
  /** Turns of each engine that count. */
  rounds: number;
  readyTimeoutSeconds: number;
  /** For one batch. */
  turnTimeoutSeconds: number;
  /** When it is aborted, what runs rejects with its reason; close the run then. */
  signal: AbortSignal;
}

/**
 * Engines that take turns, round by round, so that what else the machine does hits all alike. All of them stay loaded, and all but the one whose turn it is, or
 * that is starting, are paused. An engine that fails does not end the run.
 */
export class PeerRun {
  /** Of the engines that take part, in their order. */
  readonly versions: Record<string, string> = {};
  /** Seconds, of those that started. */
  readonly readySeconds: Record<string, number> = {};
  /** By name: running, or why it does not run (any more). */
  private readonly engines = new Map<string, PeerSession | Error>();

  private constructor(
    private readonly workload: PeerWorkload,
    private readonly options: PeerRunOptions,
  ) {}

  /**
   * Starts one engine after the other; those that can't run the workload sit out.
   *
   * @throws UsageError where two have the same name, or one is not where it should be; an engine's own error when none starts
   */
  static async start(peers: readonly Peer[], workload: PeerWorkload, options: PeerRunOptions): Promise<PeerRun> {
    const run = new PeerRun(workload, options);
    const taking: Peer[] = [];
    for (const peer of peers) {
      const version = await peer.version(workload);
      if (version === null) continue;
      if (peer.name in run.versions)
        throw new UsageError(`Two engines are named "${peer.name}"; their figures would mix.`);
      run.versions[peer.name] = version;
      taking.push(peer);
    }
    try {
      for (const peer of taking) run.engines.set(peer.name, await run.startPeer(peer));
      const errors = [...run.engines.values()].filter((engine) => engine instanceof Error);
      if (errors.length > 0 && errors.length === taking.length) throw errors[0];
    } catch (error) {
      await run.close();
      throw error;
    }
    return run;
  }

  /** A row for each engine. A first round warms up; one that fails has no further turns in this load, and gets the next one. */
  async measure({ aspect, ...batch }: PeerMeasurement): Promise<PeerOutcome[]> {
    const turns = [...this.engines.keys()].map((peer) => ({
      peer,
      rates: [] as number[],
      error: null as Error | null,
    }));
    for (let round = 0; round <= this.options.rounds; round++) {
      for (const turn of turns) {
        if (turn.error !== null) continue;
        try {
          const rates = await this.turn(turn.peer, batch);
          if (round > 0) turn.rates.push(rates[RATE_OF[aspect]]);
        } catch (error) {
          this.options.signal.throwIfAborted();
          turn.error = error as Error;
        }
      }
    }
    const { batchSize, requestsEach, inputLen, outputLen } = batch;
    return turns.map(({ peer, rates, error }) => ({
      ...{
        peer,
        aspect,
        batch_size: batchSize,
        requests_each: requestsEach,
        input_len: inputLen,
        output_len: outputLen,
      },
      ...(error === null ? { tokens_per_s: median(rates), tokens_per_s_rounds: rates } : { error: error.message }),
    }));
  }

  async close(): Promise<void> {
    const sessions = [...this.engines.values()].filter((engine): engine is PeerSession => !(engine instanceof Error));
    await Promise.all(sessions.map((session) => session.close()));
  }

  private async startPeer(peer: Peer): Promise<PeerSession | Error> {
    const { readyTimeoutSeconds: seconds, signal } = this.options;
    try {
      const session = await within({ seconds, what: 'Its start', signal }, (inTime) =>
        peer.start(this.workload, inTime),
      );
      this.readySeconds[peer.name] = session.readySeconds;
      session.pause();
      return session;
    } catch (error) {
      signal.throwIfAborted();
      return error as Error;
    }
  }

  private async turn(name: string, batch: PeerBatch): Promise<BatchRates> {
    const session = this.engines.get(name)!;
    if (session instanceof Error) throw session;
    try {
      return await this.runAlone(session, batch);
    } catch (error) {
      // What is still busy with a batch would take the next one late, and larger ones are to come.
      if (error instanceof DeadlineError) {
        this.engines.set(name, error);
        await session.close();
      }
      throw error;
    }
  }

  private async runAlone(session: PeerSession, batch: PeerBatch): Promise<BatchRates> {
    const { turnTimeoutSeconds: seconds, signal } = this.options;
    try {
      return await within({ seconds, what: 'A batch', signal }, async (inTime) => {
        await unlessAborted(session.resume(batch), inTime);
        return batchRates(batch, await unlessAborted(session.run(batch), inTime));
      });
    } finally {
      session.pause();
    }
  }
}
