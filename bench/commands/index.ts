import type { BenchCommand } from '../command.ts';

/** Each subcommand: what it is for, and how to get it, so that one does not load what another needs. */
export const COMMANDS: Readonly<Record<string, { doc: string; load(): Promise<BenchCommand> }>> = {
  latency: {
    doc: 'one batch on the engine: prefill and decode beside the limits of the machine',
    load: async () => (await import('./latency.ts')).latency,
  },
  throughput: {
    doc: 'all requests at once on the engine',
    load: async () => (await import('./throughput.ts')).throughput,
  },
};
