import type { LogprobsTensors } from '../sampling/logprobs-tensors.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import type { PositionLogprobs, TokenLogprob } from './engine-client.ts';

/** Gives log probabilities their tokens' texts. */
export class LogprobsDecoder {
  private readonly texts = new Map<number, string>();

  constructor(private readonly tokenizer: Tokenizer | null) {}

  /** One entry a position. */
  decode(tensors: LogprobsTensors): PositionLogprobs[] {
    const { numPositions, width, tokenIds, logprobs, ranks } = tensors;
    return Array.from({ length: numPositions }, (_, position) => {
      const entries: TokenLogprob[] = [];
      for (let i = 0; i < width; i++) {
        const at = position * width + i;
        const tokenId = tokenIds[at]!;
        // Entry 0 is the token itself, with its own rank; the others are the best ones in order.
        const rank = i === 0 ? ranks[position]! : i;
        entries.push({ tokenId, logprob: logprobs[at]!, rank, decodedToken: this.text(tokenId) });
      }
      return entries;
    });
  }

  private text(id: number): string {
    if (this.tokenizer === null) return '';
    let text = this.texts.get(id);
    if (text === undefined) {
      text = this.tokenizer.decode([id], { skipSpecialTokens: false });
      this.texts.set(id, text);
    }
    return text;
  }
}
