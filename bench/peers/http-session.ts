import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { unlessAborted } from '../deadline.ts';
import { type SampleRequest, Target } from '../load/target.ts';
import { randomTokenIds, seededRandom } from '../random.ts';
import type { ServerProcess } from '../server-process.ts';
import { type PeerBatch, type PeerSession, type SequenceArrivals, smallBatch } from './peer.ts';

/** Ids that every vocabulary has. */
const VOCABULARY = 2000;

const END_KNOWN_MS = 500;

/** The name that servers give the model. */
export const MODEL_NAME = 'model';

/** Bench shapes have none; servers want to be told, and their tokens have no text. */
export function hasTokenizer(model: string): boolean {
  return existsSync(join(model, 'tokenizer.json'));
}

/** A token without text makes no event of its own unless it carries its id. */
export function streamsOf(model: string): Record<string, unknown> {
  return hasTokenizer(model) ? {} : { return_token_ids: true };
}

/** A server and how to talk to it. */
export interface HttpEngine {
  server: ServerProcess;
  /** Its URL, when it takes prompts; rejects when it ends before. */
  ready: Promise<string>;
  /** Fields that go into every request as they are. */
  extraBody: Readonly<Record<string, unknown>>;
  /** What only the server needed, given back when it has ended. */
  release?(): void;
}

/** An engine behind an OpenAI-compatible server, measured by its streams. */
export class HttpSession implements PeerSession {
  readonly readySeconds: number;
  private readonly target: Target;
  private readonly random = seededRandom(0);

  /** A session when the server is ready. One that does not get so far, or in time, is ended. */
  static async open(engine: HttpEngine, signal: AbortSignal): Promise<HttpSession> {
    try {
      return new HttpSession(engine, await unlessAborted(engine.ready, signal));
    } catch (error) {
      await engine.server.stop();
      engine.release?.();
      throw error;
    }
  }

  private constructor(
    private readonly engine: HttpEngine,
    url: string,
  ) {
    this.readySeconds = (performance.now() - engine.server.started) / 1000;
    this.target = new Target({
      backend: 'openai',
      baseUrl: new URL(url),
      endpoint: '/v1/completions',
      model: MODEL_NAME,
      apiKey: null,
      ignoreEos: true,
      extraBody: engine.extraBody,
    });
  }

  async run({ batchSize, requestsEach, inputLen, outputLen }: PeerBatch): Promise<SequenceArrivals[]> {
    const prompts = Array.from({ length: batchSize }, () =>
      Array.from({ length: requestsEach }, () => [...randomTokenIds(this.random, inputLen, VOCABULARY)]),
    );
    const begun = performance.now();
    const arrivals: SequenceArrivals[] = [];
    const places = prompts.map(async (own) => {
      for (const prompt of own) {
        const seconds = (performance.now() - begun) / 1000;
        arrivals.push(await this.send({ prompt, promptLen: inputLen, outputLen }, seconds));
      }
    });
    // Where one fails the others still end: nothing is under way when the next batch comes.
    await Promise.allSettled(places);
    await Promise.all(places);
    return arrivals;
  }

  /** @param seconds since the batch began */
  private async send(request: SampleRequest, seconds: number): Promise<SequenceArrivals> {
    const { success, error, ttft, itl, outputTokens } = await this.target.send(request);
    if (!success) throw (await this.engine.server.failureWithin(END_KNOWN_MS)) ?? new Error(error);
    const times = [seconds + ttft];
    for (const gap of itl) times.push(times.at(-1)! + gap);
    return { times, numTokens: outputTokens };
  }

  pause(): void {
    this.engine.server.pause();
  }

  async resume(batch: PeerBatch): Promise<void> {
    this.engine.server.resume();
    // It opens the connections too: servers close those that were idle for some seconds.
    await this.run(smallBatch(batch));
  }

  async close(): Promise<void> {
    this.target.close();
    await this.engine.server.stop();
    this.engine.release?.();
  }
}
