import type { BenchCommand } from '../command.ts';

/** Each subcommand: what it is for, and how to get it, so that one does not load what another needs. */
export const COMMANDS: Readonly<Record<string, { doc: string; load(): Promise<BenchCommand> }>> = {
  limits: {
    doc: 'what the device gives at most',
    load: async () => (await import('./limits.ts')).limits,
  },
  latency: {
    doc: 'one batch on the engine: prefill and decode beside the limits of the machine',
    load: async () => (await import('./latency.ts')).latency,
  },
  batches: {
    doc: 'batches of several sizes in turn: how many times the first size the others decode',
    load: async () => (await import('./batches.ts')).batches,
  },
  throughput: {
    doc: 'all requests at once on the engine',
    load: async () => (await import('./throughput.ts')).throughput,
  },
  serve: {
    doc: 'load on an OpenAI-compatible server: throughput, TTFT, TPOT, ITL, E2EL, goodput',
    load: async () => (await import('./serve.ts')).serve,
  },
  startup: {
    doc: 'from the start of the server process to ready and to the first token',
    load: async () => (await import('./startup.ts')).startup,
  },
  frontend: {
    doc: 'HTTP, tokenizer and SSE with an engine that answers at once',
    load: async () => (await import('./frontend.ts')).frontend,
  },
  scheduler: {
    doc: 'decode steps of the scheduler alone',
    load: async () => (await import('./scheduler.ts')).scheduler,
  },
  grammars: {
    doc: 'structured output: compiles and masks of random schemas',
    load: async () => (await import('./grammars.ts')).grammars,
  },
  kernels: {
    doc: 'each op over the shapes of a model, beside the limits of the machine',
    load: async () => (await import('./kernels.ts')).kernels,
  },
  perplexity: {
    doc: 'what quantization costs: perplexity and greedy answers beside those of the weights as they are',
    load: async () => (await import('./perplexity.ts')).perplexity,
  },
  peers: {
    doc: 'the same model and load through Bao and every other engine that is installed',
    load: async () => (await import('./peers.ts')).peers,
  },
  report: {
    doc: 'charts of bench/results as SVG',
    load: async () => (await import('./report.ts')).report,
  },
  overview: {
    doc: 'a few minutes of everything; what bun bench alone runs',
    load: async () => (await import('./overview.ts')).overview,
  },
};
