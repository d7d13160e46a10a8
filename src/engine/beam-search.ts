import { DEFAULT_SAMPLING_PARAMS, type SamplingParams } from '../sampling/sampling-params.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { CompletionOutput, PositionLogprobs, RequestOutput, TokenLogprob } from './engine-client.ts';

/** vLLM's BeamSearchParams, resolved. */
export interface BeamSearchParams {
  /** Beams that are kept, and answers that are given. At least 1. */
  beamWidth: number;
  /** Best tokens looked at for each beam, and told in the log probabilities. At least `2 * beamWidth`. */
  numLogprobs: number;
  /** Within what the model has room for behind the prompt. */
  maxTokens: number;
  /** Exponent of the length by which a log probability is divided: above 0 favours long answers. */
  lengthPenalty: number;
  ignoreEos: boolean;
  skipSpecialTokens: boolean;
}

/** One token more for each prompt, all in one batch; outputs in the prompts' order. */
export type BeamStep = (
  requests: readonly { promptTokenIds: Int32Array; params: SamplingParams }[],
) => Promise<RequestOutput[]>;

export interface BeamSearchContext {
  eosTokenIds: readonly number[];
  /** null: outputs have no text. */
  tokenizer: Tokenizer | null;
  step: BeamStep;
}

/** The output of a search, with the total log probability of each answer. */
export interface BeamSearchOutput extends RequestOutput {
  outputs: (CompletionOutput & { cumulativeLogprob: number })[];
}

interface Beam {
  tokenIds: number[];
  logprobs: PositionLogprobs[];
  cumulativeLogprob: number;
  isComplete: boolean;
}

/**
 * The most probable continuations of a prompt, the best first, by vLLM's rule: each step continues every beam with its `numLogprobs` best tokens
 * and keeps the `beamWidth` best beams; those that end with EOS stand aside, and at the end all are ranked by
 * `cumulativeLogprob / length ** lengthPenalty`, the prompt counted in the length and EOS not.
 * The search ends early only where no beam that is still growing could be among the answers.
 */
export async function beamSearch(
  promptTokenIds: Int32Array,
  params: BeamSearchParams,
  context: BeamSearchContext,
): Promise<BeamSearchOutput> {
  const search = new BeamSearch(promptTokenIds, params, context);
  while (!search.isOver) await search.advance();
  return search.output();
}

class BeamSearch {
  private growing: Beam[] = [{ tokenIds: [], logprobs: [], cumulativeLogprob: 0, isComplete: false }];
  private complete: Beam[] = [];
  private numSteps = 0;
  private numCachedTokens = 0;
  private readonly stepParams: SamplingParams;

  constructor(
    private readonly promptTokenIds: Int32Array,
    private readonly params: BeamSearchParams,
    private readonly context: BeamSearchContext,
  ) {
    this.stepParams = {
      ...DEFAULT_SAMPLING_PARAMS,
      temperature: 0,
      maxTokens: 1,
      logprobs: params.numLogprobs,
      ignoreEos: params.ignoreEos,
      detokenize: false,
      outputKind: 'final-only',
    };
  }

  get isOver(): boolean {
    if (this.numSteps >= this.params.maxTokens || this.growing.length === 0) return true;
    if (this.complete.length < this.params.beamWidth) return false;
    return this.score(this.complete[this.params.beamWidth - 1]!) >= this.highestScoreToCome();
  }

  async advance(): Promise<void> {
    const requests = this.growing.map(({ tokenIds }) => ({
      promptTokenIds: Int32Array.from([...this.promptTokenIds, ...tokenIds]),
      params: this.stepParams,
    }));
    const outputs = await this.context.step(requests);
    if (this.numSteps++ === 0) this.numCachedTokens = outputs[0]!.numCachedTokens;
    const next = this.growing.flatMap((beam, i) => this.continuations(beam, outputs[i]!));
    this.complete = this.best([...this.complete, ...next.filter((beam) => beam.isComplete)]);
    this.growing = this.best(next.filter((beam) => !beam.isComplete));
  }

  output(): BeamSearchOutput {
    const answers = this.best([...this.complete, ...this.growing]);
    return {
      requestId: '',
      promptTokenIds: this.promptTokenIds,
      promptLogprobs: null,
      outputs: answers.map((beam, index) => this.toOutput(beam, index)),
      finished: true,
      numCachedTokens: this.numCachedTokens,
    };
  }

  private continuations(beam: Beam, output: RequestOutput): Beam[] {
    const position = output.outputs[0]?.logprobs?.[0] ?? [];
    const candidates = new Map(position.map((candidate) => [candidate.tokenId, candidate]));
    return [...candidates.values()].map((candidate) => ({
      tokenIds: [...beam.tokenIds, candidate.tokenId],
      logprobs: [...beam.logprobs, chosenFirst(candidate, [...candidates.values()])],
      cumulativeLogprob: beam.cumulativeLogprob + candidate.logprob,
      isComplete: !this.params.ignoreEos && this.context.eosTokenIds.includes(candidate.tokenId),
    }));
  }

  /** The `beamWidth` best, sorted; of equal ones the first. */
  private best(beams: Beam[]): Beam[] {
    return beams.sort((a, b) => this.score(b) - this.score(a)).slice(0, this.params.beamWidth);
  }

  private score({ cumulativeLogprob, tokenIds, isComplete }: Beam): number {
    return this.scoreAt(cumulativeLogprob, tokenIds.length - (isComplete ? 1 : 0));
  }

  private scoreAt(cumulativeLogprob: number, numTokens: number): number {
    return cumulativeLogprob / (this.promptTokenIds.length + numTokens) ** this.params.lengthPenalty;
  }

  /** What a growing beam would reach if all its further tokens were certain: at the length that flatters it most. */
  private highestScoreToCome(): number {
    const highest = Math.max(...this.growing.map((beam) => beam.cumulativeLogprob));
    return Math.max(this.scoreAt(highest, this.numSteps), this.scoreAt(highest, this.params.maxTokens));
  }

  private toOutput({ tokenIds, logprobs, cumulativeLogprob, isComplete }: Beam, index: number) {
    const { tokenizer } = this.context;
    const shown = isComplete ? tokenIds.slice(0, -1) : tokenIds;
    const { skipSpecialTokens } = this.params;
    return {
      index,
      text: tokenizer?.decode(shown, { skipSpecialTokens }) ?? '',
      tokenIds,
      logprobs,
      cumulativeLogprob,
      finishReason: isComplete ? ('stop' as const) : ('length' as const),
      stopReason: null,
    };
  }
}

function chosenFirst(chosen: TokenLogprob, position: readonly TokenLogprob[]): TokenLogprob[] {
  return [chosen, ...position.filter((entry) => entry !== chosen)];
}
