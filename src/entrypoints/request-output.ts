import type {
  CompletionOutput as EngineCompletion,
  RequestOutput as EngineOutput,
  PositionLogprobs,
} from '../engine/engine-client.ts';
import type { FinishReason } from '../scheduler/finish-reason.ts';

/** What the model thinks of one token. */
export interface Logprob {
  logprob: number;
  /** 1-based. */
  rank: number;
  decodedToken: string;
}

/** Token id to log probability at one position: the chosen token first, then the best ones in order. */
export type Logprobs = Map<number, Logprob>;

export interface CompletionOutput {
  /** 0..n-1 */
  index: number;
  text: string;
  tokenIds: number[];
  /** Of all tokens of the answer so far together; null unless log probabilities were asked for. */
  cumulativeLogprob: number | null;
  /** One entry a token; null unless asked for. */
  logprobs: Logprobs[] | null;
  /** null while it goes on. */
  finishReason: FinishReason | null;
  /** The stop string or stop token id that ended it. */
  stopReason: string | number | null;
}

/** vLLM's RequestOutput. */
export interface RequestOutput {
  requestId: string;
  /** null for a prompt of token ids. */
  prompt: string | null;
  promptTokenIds: number[];
  /** One entry a prompt token, null for the first; null unless asked for. */
  promptLogprobs: (Logprobs | null)[] | null;
  outputs: CompletionOutput[];
  finished: boolean;
  /** Prompt tokens that were found in the prefix cache. */
  numCachedTokens: number;
}

/** Turns the engine's outputs to one request into those of the programming interface. */
export class OutputConverter {
  /** By the answer's index. */
  private readonly cumulativeLogprobs: number[] = [];

  /** @param isDelta outputs carry only what is new */
  constructor(
    private readonly prompt: string | null,
    private readonly isDelta: boolean,
  ) {}

  convert(output: EngineOutput): RequestOutput {
    return {
      requestId: output.requestId,
      prompt: this.prompt,
      promptTokenIds: [...output.promptTokenIds],
      promptLogprobs: output.promptLogprobs?.map(toLogprobs) ?? null,
      outputs: output.outputs.map((each) => this.convertOne(each)),
      finished: output.finished,
      numCachedTokens: output.numCachedTokens,
    };
  }

  private convertOne({ index, text, tokenIds, logprobs, finishReason, stopReason }: EngineCompletion) {
    const all = logprobs?.map((position) => toLogprobs(position) ?? new Map()) ?? null;
    return {
      index,
      text,
      tokenIds: [...tokenIds],
      cumulativeLogprob: logprobs === null ? null : this.accumulate(index, logprobs),
      logprobs: all,
      finishReason,
      stopReason,
    };
  }

  private accumulate(index: number, logprobs: readonly PositionLogprobs[]): number {
    const before = this.isDelta ? (this.cumulativeLogprobs[index] ?? 0) : 0;
    const sum = logprobs.reduce((total, position) => total + (position?.[0]?.logprob ?? 0), before);
    this.cumulativeLogprobs[index] = sum;
    return sum;
  }
}

function toLogprobs(position: PositionLogprobs): Logprobs | null {
  if (position === null) return null;
  const logprobs: Logprobs = new Map();
  for (const { tokenId, logprob, rank, decodedToken } of position) {
    // The chosen token comes first and may come again.
    if (!logprobs.has(tokenId)) logprobs.set(tokenId, { logprob, rank, decodedToken });
  }
  return logprobs;
}
