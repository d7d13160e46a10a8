import { ConfigError } from '../../src/config/config-error.ts';
import { defineCommand, OUTPUT_JSON } from '../command.ts';
import type { FrontendMessage } from '../frontend/server.ts';
import { HttpPool } from '../load/http-connection.ts';
import { writeResult } from '../results.ts';
import { formatPairs, shortNumber } from '../table.ts';

const EVENT_START = Buffer.from('data: ');
/** About 30 tokens: a question, not a document. */
const PROMPT =
  'Tell me a story about an owl named Carol who lives in a tall tree and likes to count the stars at night.';

/** The JSON of `bun bench frontend`. */
export interface FrontendFigures {
  concurrency: number;
  output_len: number;
  /** Tokens of a stream that are ready each time the server looks, and share a write. */
  tokens_at_once: number;
  api_server_count: number;
  /** Seconds. */
  duration: number;
  requests: number;
  requests_per_second: number;
  chunks: number;
  chunks_per_second: number;
  /** CPU time of the API servers' threads together. */
  server_cpu_seconds: number;
  chunks_per_core_second: number;
}

export interface FrontendLoad {
  model: string;
  concurrency: number;
  outputLen: number;
  tokensAtOnce: number;
  apiServerCount: number;
  /** Requests of each of the concurrent clients. */
  rounds: number;
}

/** Streams chats from a server whose engine answers at once. */
export async function measureFrontend(load: FrontendLoad): Promise<FrontendFigures> {
  const server = await FrontendServer.start(load);
  const pool = new HttpPool(new URL(server.url));
  try {
    const warmup = Math.max(1, Math.floor(load.rounds / 5));
    await streamChats(pool, load, warmup);
    const cpuBefore = await server.cpuSeconds();
    const started = performance.now();
    const chunks = await streamChats(pool, load, load.rounds);
    const duration = (performance.now() - started) / 1000;
    const cpuSeconds = (await server.cpuSeconds()) - cpuBefore;
    const requests = load.concurrency * load.rounds;
    return {
      concurrency: load.concurrency,
      output_len: load.outputLen,
      tokens_at_once: load.tokensAtOnce,
      api_server_count: load.apiServerCount,
      duration,
      requests,
      requests_per_second: requests / duration,
      chunks,
      chunks_per_second: chunks / duration,
      server_cpu_seconds: cpuSeconds,
      chunks_per_core_second: chunks / cpuSeconds,
    };
  } finally {
    pool.close();
    server.stop();
  }
}

/** Chunks received by all clients. Throws Error for an answer that is not 200. */
async function streamChats(pool: HttpPool, load: FrontendLoad, rounds: number): Promise<number> {
  const body = JSON.stringify({
    model: load.model,
    messages: [{ role: 'user', content: PROMPT }],
    max_tokens: load.outputLen,
    ignore_eos: true,
    stream: true,
  });
  let chunks = 0;
  const count = (bytes: Uint8Array) => {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = text.indexOf(EVENT_START); at >= 0; at = text.indexOf(EVENT_START, at + EVENT_START.length)) chunks++;
  };
  const client = async () => {
    for (let round = 0; round < rounds; round++) {
      const { status } = await pool.post('/v1/chat/completions', {}, body, count);
      if (status !== 200) throw new Error(`The server answers ${status}.`);
    }
  };
  await Promise.all(Array.from({ length: load.concurrency }, client));
  return chunks;
}

class FrontendServer {
  private constructor(
    private readonly child: Bun.Subprocess,
    readonly url: string,
    private readonly nextMessage: () => Promise<FrontendMessage>,
  ) {}

  /** Throws ConfigError for a model without a tokenizer, and for more API servers than there are CPU cores. */
  static async start({ model, tokensAtOnce, apiServerCount }: FrontendLoad): Promise<FrontendServer> {
    let next = Promise.withResolvers<FrontendMessage>();
    const entry = `${import.meta.dir}/../frontend/server.ts`;
    const child = Bun.spawn([process.execPath, entry, model, String(tokensAtOnce), String(apiServerCount)], {
      stdio: ['ignore', 'ignore', 'inherit'],
      ipc: (message: FrontendMessage) => next.resolve(message),
      onExit: (_, code) => next.reject(new Error(`The server ended with code ${code}.`)),
    });
    const nextMessage = async () => {
      const message = await next.promise;
      next = Promise.withResolvers();
      next.promise.catch(() => {});
      return message;
    };
    const ready = await nextMessage();
    if (ready.type === 'ready') return new FrontendServer(child, ready.url, nextMessage);
    child.kill('SIGKILL');
    throw new ConfigError(
      ready.type === 'failed' ? ready.reason : 'The server said something else before it was ready.',
    );
  }

  async cpuSeconds(): Promise<number> {
    this.child.send('cpu');
    const message = await this.nextMessage();
    return message.type === 'cpu' ? message.seconds : 0;
  }

  stop(): void {
    this.child.kill('SIGKILL');
  }
}

export function frontendTable(figures: FrontendFigures): string {
  return formatPairs([
    ['API servers', String(figures.api_server_count)],
    ['Clients', `${figures.concurrency}, ${figures.output_len} tokens each time, ${figures.tokens_at_once} at once`],
    ['Requests a second', shortNumber(figures.requests_per_second)],
    ['Chunks a second', shortNumber(figures.chunks_per_second)],
    ["Chunks a second of the API servers' CPU", shortNumber(figures.chunks_per_core_second)],
  ]);
}

export const frontend = defineCommand({
  name: 'frontend',
  doc: 'HTTP, tokenizer and SSE with an engine that answers at once; client and server are two processes on this machine.',
  flags: {
    model: { type: 'string', default: 'demo', help: 'Whose tokenizer and chat template.' },
    'max-concurrency': { type: 'int', default: 64, min: 1, help: 'Clients at once.' },
    'output-len': { type: 'tokens', default: 128, min: 1, help: 'Tokens, and so chunks, of each answer.' },
    'tokens-at-once': {
      type: 'int',
      default: 1,
      min: 1,
      help: 'Tokens of each stream that are ready each time the server looks: more than 1 where the engine gets ahead of it.',
    },
    'api-server-count': { type: 'int', default: 1, min: 1, help: "Threads that answer, as with the server's flag." },
    'num-rounds': { type: 'int', default: 20, min: 1, help: 'Requests of each client.' },
    ...OUTPUT_JSON,
  },
  takesEngineFlags: false,
  async run(values) {
    const { model, maxConcurrency, outputLen, tokensAtOnce, apiServerCount, numRounds } = values;
    const load = { model, concurrency: maxConcurrency, outputLen, tokensAtOnce, apiServerCount, rounds: numRounds };
    const figures = await measureFrontend(load);
    process.stdout.write(frontendTable(figures));
    await writeResult(values.outputJson, 'frontend', figures);
  },
});
