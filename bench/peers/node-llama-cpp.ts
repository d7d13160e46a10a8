import { join } from 'node:path';
import { type Gguf, ggufOf } from './gguf.ts';
import type { LlamaArguments, LlamaMessage } from './node-llama-cpp-process.ts';
import type { Peer, PeerBatch, PeerLocations, PeerSession, SequenceArrivals } from './peer.ts';

const PACKAGE = 'node-llama-cpp';

/** llama.cpp through node-llama-cpp, in a process of its own, on a GGUF file of the same weights. */
export function nodeLlamaCpp({ nodeLlamaCpp, gguf }: PeerLocations): Peer {
  const folder = join(nodeLlamaCpp ?? '.', 'node_modules', PACKAGE);
  return {
    name: PACKAGE,
    async version() {
      const manifest = Bun.file(join(folder, 'package.json'));
      return (await manifest.exists()) ? ((await manifest.json()) as { version: string }).version : null;
    },
    async start(workload) {
      const file = await ggufOf(workload, gguf);
      const session = new LlamaSession(file);
      try {
        await session.start({ packageFolder: folder, gguf: file.path, threads: workload.threads });
      } catch (error) {
        await session.close();
        throw error;
      }
      return session;
    },
  };
}

class LlamaSession implements PeerSession {
  readySeconds = 0;
  private child: Bun.Subprocess | null = null;
  private next = Promise.withResolvers<LlamaMessage>();

  constructor(private readonly file: Gguf) {}

  async start(options: LlamaArguments): Promise<void> {
    const started = performance.now();
    const entry = join(import.meta.dir, 'node-llama-cpp-process.ts');
    this.child = Bun.spawn([process.execPath, entry, JSON.stringify(options)], {
      // Its log would stand in the middle of the table.
      stdio: ['ignore', 'ignore', 'ignore'],
      ipc: (message: LlamaMessage) => this.next.resolve(message),
      onExit: (_, code) => this.next.reject(new Error(`${PACKAGE} ended with code ${code}.`)),
    });
    await this.message();
    this.readySeconds = (performance.now() - started) / 1000;
  }

  async run(batch: PeerBatch): Promise<SequenceArrivals[]> {
    this.child!.send(batch);
    const message = await this.message();
    if (message.type !== 'arrivals') throw new Error(`${PACKAGE} did not answer with times.`);
    return message.sequences.map((times) => ({ times, numTokens: times.length }));
  }

  async close(): Promise<void> {
    this.next.promise.catch(() => {});
    this.child?.kill('SIGKILL');
    this.file.remove();
  }

  private async message(): Promise<LlamaMessage> {
    const message = await this.next.promise;
    this.next = Promise.withResolvers();
    this.next.promise.catch(() => {});
    if (message.type === 'failed') throw new Error(`${PACKAGE}: ${message.reason}`);
    return message;
  }
}
