import { Target } from '../load/target.ts';
import { randomTokenIds, seededRandom } from '../random.ts';
import type { ServerProcess } from '../server-process.ts';
import type { PeerBatch, PeerRates, PeerSession } from './peer.ts';

/** Ids that every vocabulary has. */
const VOCABULARY = 2000;

/** An engine behind an OpenAI-compatible server, measured by its streams. */
export class HttpSession implements PeerSession {
  private readonly target: Target;
  private readonly random = seededRandom(0);

  constructor(
    private readonly server: ServerProcess,
    url: string,
    model: string,
  ) {
    this.target = new Target({
      backend: 'openai',
      baseUrl: new URL(url),
      endpoint: '/v1/completions',
      model,
      apiKey: null,
      ignoreEos: true,
      extraBody: {},
    });
  }

  async run({ batchSize, inputLen, outputLen }: PeerBatch): Promise<PeerRates> {
    const requests = Array.from({ length: batchSize }, () => ({
      prompt: [...randomTokenIds(this.random, inputLen, VOCABULARY)],
      promptLen: inputLen,
      outputLen,
    }));
    const results = await Promise.all(requests.map((request) => this.target.send(request)));
    const failed = results.find((result) => !result.success);
    if (failed !== undefined) throw new Error(failed.error);
    const prefill = Math.max(...results.map((result) => result.ttft));
    const total = Math.max(...results.map((result) => result.latency));
    return {
      prefillTokensPerS: (batchSize * inputLen) / prefill,
      decodeTokensPerS: (batchSize * (outputLen - 1)) / (total - prefill),
    };
  }

  async close(): Promise<void> {
    this.target.close();
    await this.server.stop();
  }
}
