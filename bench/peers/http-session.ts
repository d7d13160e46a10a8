import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Target } from '../load/target.ts';
import { randomTokenIds, seededRandom } from '../random.ts';
import type { ServerProcess } from '../server-process.ts';
import type { PeerBatch, PeerSession, SequenceArrivals } from './peer.ts';

/** Ids that every vocabulary has. */
const VOCABULARY = 2000;

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

/** An engine behind an OpenAI-compatible server, measured by its streams. Make it when the server is ready. */
export class HttpSession implements PeerSession {
  readonly readySeconds: number;
  private readonly target: Target;
  private readonly random = seededRandom(0);

  constructor(
    private readonly server: ServerProcess,
    url: string,
    extraBody: Readonly<Record<string, unknown>>,
  ) {
    this.readySeconds = (performance.now() - server.started) / 1000;
    this.target = new Target({
      backend: 'openai',
      baseUrl: new URL(url),
      endpoint: '/v1/completions',
      model: MODEL_NAME,
      apiKey: null,
      ignoreEos: true,
      extraBody,
    });
  }

  async run({ batchSize, inputLen, outputLen }: PeerBatch): Promise<SequenceArrivals[]> {
    const requests = Array.from({ length: batchSize }, () => ({
      prompt: [...randomTokenIds(this.random, inputLen, VOCABULARY)],
      promptLen: inputLen,
      outputLen,
    }));
    const results = await Promise.all(requests.map((request) => this.target.send(request)));
    const failed = results.find((result) => !result.success);
    if (failed !== undefined) throw new Error(failed.error);
    return results.map(({ ttft, itl, outputTokens }) => {
      const times = [ttft];
      for (const gap of itl) times.push(times.at(-1)! + gap);
      return { times, numTokens: outputTokens };
    });
  }

  async close(): Promise<void> {
    this.target.close();
    await this.server.stop();
  }
}
