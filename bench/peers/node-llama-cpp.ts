import { join } from 'node:path';
import { unlessAborted } from '../deadline.ts';
import { ProcessGroup } from '../process-group.ts';
import { type Gguf, ggufOf } from './gguf.ts';
import type { LlamaArguments, LlamaMessage, LlamaRequest } from './node-llama-cpp-process.ts';
import {
  type Peer,
  type PeerBatch,
  type PeerLocations,
  type PeerSession,
  type SequenceArrivals,
  smallBatch,
} from './peer.ts';

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
    async start(workload, signal) {
      const file = await ggufOf(workload, gguf);
      const session = new LlamaSession({ packageFolder: folder, gguf: file.path, threads: workload.threads }, file);
      try {
        await unlessAborted(session.ready(), signal);
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
  private readonly group: ProcessGroup;
  private next = Promise.withResolvers<LlamaMessage>();
  private ended: Error | null = null;

  constructor(
    options: LlamaArguments,
    private readonly file: Gguf,
  ) {
    const entry = join(import.meta.dir, 'node-llama-cpp-process.ts');
    this.group = new ProcessGroup([process.execPath, entry, JSON.stringify(options)], {
      // Its log would stand in the middle of the table.
      stdout: 'ignore',
      stderr: 'ignore',
      ipc: (message: LlamaMessage) => this.next.resolve(message),
      onExit: (_, code, signal) => {
        this.ended = new Error(`${PACKAGE} ended with ${code === null ? signal : `code ${code}`}.`);
        this.next.reject(this.ended);
      },
    });
    this.next.promise.catch(() => {});
  }

  async ready(): Promise<void> {
    await this.answer();
    this.readySeconds = (performance.now() - this.group.started) / 1000;
  }

  /** All sequences end before the next ones begin: it is no server that could take one when another ends. */
  async run(batch: PeerBatch): Promise<SequenceArrivals[]> {
    const begun = performance.now();
    const arrivals: SequenceArrivals[] = [];
    for (let request = 0; request < batch.requestsEach; request++) {
      const seconds = (performance.now() - begun) / 1000;
      for (const { times, numTokens } of await this.runIn(batch, batch)) {
        arrivals.push({ times: times.map((time) => seconds + time), numTokens });
      }
    }
    return arrivals;
  }

  pause(): void {
    this.group.pause();
  }

  async resume(batch: PeerBatch): Promise<void> {
    this.group.resume();
    await this.runIn(batch, smallBatch(batch));
  }

  async close(): Promise<void> {
    await this.group.stop();
    this.file.remove();
  }

  /** Runs a batch in a context that is made for another. */
  private async runIn(contextFor: PeerBatch, batch: PeerBatch): Promise<SequenceArrivals[]> {
    if (this.ended !== null) throw this.ended;
    this.group.child.send({ batch, contextFor } satisfies LlamaRequest);
    const answer = await this.answer();
    if (answer.type !== 'arrivals') throw new Error(`${PACKAGE} did not answer with times.`);
    return answer.sequences.map((times) => ({ times, numTokens: times.length }));
  }

  private async answer(): Promise<LlamaMessage> {
    const message = await this.next.promise;
    this.next = Promise.withResolvers();
    this.next.promise.catch(() => {});
    if (message.type === 'failed') throw new Error(`${PACKAGE}: ${message.reason}`);
    return message;
  }
}
