import type { PositionLogprobs, TokenLogprob } from '../../engine/engine-client.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';

/** How log probabilities are written. JSON is built as text: the order of keys is the order of rank, which an object with keys like "12" would lose. */
export interface LogprobsFormat {
  /** Entries per position asked for; -1: all there are. */
  topN: number;
  /** Tokens as "token_id:12". Always so without a tokenizer. */
  asTokenIds: boolean;
  tokenizer: Tokenizer | null;
}

/** JSON has no -Infinity; OpenAI writes this. */
const LOWEST_LOGPROB = -9999;
const REPLACEMENT_CHARACTER = '\ufffd';
const utf8 = new TextEncoder();

/** @returns OpenAI's chat logprobs object; `logprobs` has an entry for each token */
export function chatLogprobsJson(
  tokenIds: readonly number[],
  logprobs: readonly PositionLogprobs[],
  format: LogprobsFormat,
): string {
  const content = tokenIds.map((id, i) => {
    const entries = distinct(logprobs[i] ?? null);
    const chosen = entries[0] ?? absent(id, format);
    const top = format.topN === -1 ? entries : entries.slice(0, format.topN);
    return `{${chatEntry(chosen, format)},"top_logprobs":[${top.map((entry) => `{${chatEntry(entry, format)}}`).join(',')}]}`;
  });
  return `{"content":[${content.join(',')}],"refusal":null}`;
}

function chatEntry(entry: TokenLogprob, format: LogprobsFormat): string {
  const token = JSON.stringify(tokenText(entry, format));
  return `"token":${token},"logprob":${logprobJson(entry.logprob)},"bytes":[${tokenBytes(entry, format).join(',')}]`;
}

/** The text's own bytes, or the vocabulary's where the token is but a part of a character. */
function tokenBytes(entry: TokenLogprob, { tokenizer }: LogprobsFormat): Uint8Array {
  const isPartial = entry.decodedToken.includes(REPLACEMENT_CHARACTER);
  return (isPartial ? tokenizer?.tokenBytes(entry.tokenId) : null) ?? utf8.encode(entry.decodedToken);
}

/**
 * @param firstOffset characters of the tokens before the first
 * @returns OpenAI's completion logprobs object, and the offset of the token that comes next
 */
export function completionLogprobsJson(
  tokenIds: readonly number[],
  logprobs: readonly PositionLogprobs[],
  format: LogprobsFormat,
  firstOffset: number,
): { json: string; nextOffset: number } {
  const offsets: number[] = [];
  const tokens: string[] = [];
  const chosenLogprobs: string[] = [];
  const top: string[] = [];
  let offset = firstOffset;
  for (let i = 0; i < tokenIds.length; i++) {
    const entries = distinct(logprobs[i] ?? null);
    const chosen = entries[0];
    const text = tokenText(chosen ?? absent(tokenIds[i]!, format), format);
    offsets.push(offset);
    offset += countCharacters(text);
    tokens.push(JSON.stringify(text));
    chosenLogprobs.push(chosen === undefined ? 'null' : logprobJson(chosen.logprob));
    top.push(chosen === undefined ? 'null' : topMap(entries, format));
  }
  const json = `{"text_offset":[${offsets.join(',')}],"token_logprobs":[${chosenLogprobs.join(',')}],"tokens":[${tokens.join(',')}],"top_logprobs":[${top.join(',')}]}`;
  return { json, nextOffset: offset };
}

/** The chosen token and the best `topN`: text to log probability. Of two tokens with one text the last counts, as in vLLM. */
function topMap(entries: TokenLogprob[], format: LogprobsFormat): string {
  const shown = format.topN === -1 ? entries : entries.slice(0, format.topN + 1);
  const byText = new Map(shown.map((entry) => [tokenText(entry, format), entry.logprob]));
  return `{${[...byText].map(([text, logprob]) => `${JSON.stringify(text)}:${logprobJson(logprob)}`).join(',')}}`;
}

/** @returns vLLM's list of one object a prompt token, token id to entry, the prompt's own token first; null for the first */
export function promptLogprobsJson(positions: readonly PositionLogprobs[]): string {
  const items = positions.map((position) => {
    if (position === null) return 'null';
    const entries = distinct(position).map(
      ({ tokenId, logprob, rank, decodedToken }) =>
        `"${tokenId}":{"logprob":${logprobJson(logprob)},"rank":${rank},"decoded_token":${JSON.stringify(decodedToken)}}`,
    );
    return `{${entries.join(',')}}`;
  });
  return `[${items.join(',')}]`;
}

/** The chosen token, then the best ones without it. */
function distinct(position: PositionLogprobs): TokenLogprob[] {
  const chosen = position?.[0];
  if (position === null || chosen === undefined) return [];
  return position.filter((entry, i) => i === 0 || entry.tokenId !== chosen.tokenId);
}

function absent(tokenId: number, { tokenizer }: LogprobsFormat): TokenLogprob {
  const decodedToken = tokenizer?.decode([tokenId], { skipSpecialTokens: false }) ?? '';
  return { tokenId, logprob: LOWEST_LOGPROB, rank: 0, decodedToken };
}

function tokenText(entry: TokenLogprob, { asTokenIds, tokenizer }: LogprobsFormat): string {
  return asTokenIds || tokenizer === null ? `token_id:${entry.tokenId}` : entry.decodedToken;
}

function logprobJson(logprob: number): string {
  return logprob > LOWEST_LOGPROB && logprob < Number.POSITIVE_INFINITY ? String(logprob) : String(LOWEST_LOGPROB);
}

/** Unicode code points, in which Python clients count. */
function countCharacters(text: string): number {
  let count = 0;
  for (const _ of text) count++;
  return count;
}
