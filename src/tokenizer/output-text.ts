import { createDetokenizer, type IncrementalDetokenizer } from './detokenizer.ts';
import { StopChecker } from './stop-checker.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Those of SamplingParams that decide how tokens become text. */
export interface OutputTextParams {
  stop: string[];
  includeStopStrInOutput: boolean;
  minTokens: number;
  skipSpecialTokens: boolean;
  spacesBetweenSpecialTokens: boolean;
}

export interface NewText {
  /** Text that may be sent to the client. */
  text: string;
  /** The stop string that ended it, else null. */
  stop: string | null;
  /** Tokens that it is of: none behind the one with which a stop string was complete. */
  numTokens: number;
}

/** One sequence's tokens to text: detokenizing and stop strings, token by token. vLLM's semantics. */
export class OutputText {
  readonly #detokenizer: IncrementalDetokenizer;
  /** null: there are no stop strings. */
  readonly #stopChecker: StopChecker | null;
  readonly #includeStop: boolean;
  /** Counted for the stop checker. */
  #numTokens = 0;

  constructor(tokenizer: Tokenizer, params: OutputTextParams, promptTokenIds: ArrayLike<number>) {
    const { skipSpecialTokens, spacesBetweenSpecialTokens } = params;
    this.#detokenizer = createDetokenizer(tokenizer, { skipSpecialTokens, spacesBetweenSpecialTokens, promptTokenIds });
    this.#stopChecker = params.stop.length === 0 ? null : new StopChecker(params);
    this.#includeStop = params.includeStopStrInOutput;
  }

  /** `endedByStopToken`: the last token is EOS or a stop token id, which has no place in the text unless stop strings have. */
  push(tokenIds: readonly number[], endedByStopToken = false): NewText {
    const numVisible = endedByStopToken && !this.#includeStop ? tokenIds.length - 1 : tokenIds.length;
    if (this.#stopChecker !== null) return this.#pushChecked(this.#stopChecker, tokenIds, numVisible);
    const visible = numVisible === tokenIds.length ? tokenIds : tokenIds.slice(0, numVisible);
    return { text: this.#detokenizer.push(visible), stop: null, numTokens: tokenIds.length };
  }

  /** Token by token, so that the stop string that is found does not depend on how many tokens come at once. */
  #pushChecked(stopChecker: StopChecker, tokenIds: readonly number[], numVisible: number): NewText {
    let text = '';
    for (let i = 0; i < numVisible; i++) {
      this.#numTokens++;
      const checked = stopChecker.append(this.#detokenizer.push([tokenIds[i]!]), this.#numTokens);
      text += checked.text;
      if (checked.stop !== null) return { text, stop: checked.stop, numTokens: i + 1 };
    }
    return { text, stop: null, numTokens: tokenIds.length };
  }

  /**
   * The text that was held back for stop strings, when the sequence ended for another reason.
   * Bytes of a character that never became whole are dropped, as in vLLM.
   */
  finish(): string {
    return this.#stopChecker?.flush() ?? '';
  }
}
