import { ConfigError } from '../../src/config/config-error.ts';
import type { Tokenizer } from '../../src/tokenizer/tokenizer.ts';
import { type Random, randomInt, randomTokenIds } from '../random.ts';
import type { SampleRequest } from './target.ts';

export interface RandomDatasetOptions {
  inputLen: number;
  outputLen: number;
  /** Lengths are drawn evenly from length * (1 - ratio) to length * (1 + ratio). */
  rangeRatio: number;
  /** Tokens that all prompts begin with, in addition to inputLen. */
  prefixLen: number;
}

/**
 * Prompts of random tokens. With a tokenizer they are texts, decoded from ids and cut or filled until they have the wanted length again as nearly as
 * the vocabulary allows; without one they are the ids.
 */
export function randomDataset(
  count: number,
  options: RandomDatasetOptions,
  vocabSize: number,
  tokenizer: Tokenizer | null,
  random: Random,
): SampleRequest[] {
  const { inputLen, outputLen, rangeRatio, prefixLen } = options;
  const length = (of: number) =>
    Math.max(1, randomInt(random, Math.floor(of * (1 - rangeRatio)), Math.ceil(of * (1 + rangeRatio))));
  const prefix = randomTokenIds(random, prefixLen, vocabSize);
  return Array.from({ length: count }, () => {
    const own = randomTokenIds(random, length(inputLen), vocabSize);
    const ids = [...prefix, ...own];
    return { ...(tokenizer === null ? idsPrompt(ids) : textPrompt(ids, tokenizer)), outputLen: length(outputLen) };
  });
}

function idsPrompt(ids: number[]) {
  return { prompt: ids, promptLen: ids.length };
}

/** Decoding and encoding again rarely gives the same ids: only the count matters, and that is taken as it comes out. */
function textPrompt(ids: number[], tokenizer: Tokenizer) {
  const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
  const decode = (some: ArrayLike<number>) => tokenizer.decode(some, { skipSpecialTokens: true });
  const again = encode(decode(ids));
  const prompt = decode(again.subarray(0, ids.length));
  return { prompt, promptLen: encode(prompt).length };
}

interface ShareGptEntry {
  conversations?: { value?: unknown }[];
}

/**
 * Conversations in ShareGPT's format: a JSON array of `{conversations: [{value}, {value}, …]}`. The first text is the prompt; the answer's length is
 * `outputLen`, or that of the second text (`countTokens`, null: 4 characters a token).
 *
 * @throws ConfigError for a file of another form
 */
export function shareGptDataset(
  text: string,
  count: number,
  outputLen: number | null,
  countTokens: ((text: string) => number) | null,
): SampleRequest[] {
  const entries = parseJson(text);
  if (!Array.isArray(entries)) throw new ConfigError('The sharegpt dataset must be a JSON array of conversations.');
  const requests: SampleRequest[] = [];
  for (const entry of entries as ShareGptEntry[]) {
    const [prompt, answer] = (entry?.conversations ?? []).map((turn) => turn?.value);
    if (typeof prompt !== 'string' || typeof answer !== 'string' || prompt === '') continue;
    const length = outputLen ?? countTokens?.(answer) ?? Math.ceil(answer.length / 4);
    requests.push({ prompt, promptLen: countTokens?.(prompt) ?? null, outputLen: Math.max(1, length) });
  }
  return repeatTo(requests, count, 'sharegpt');
}

/** JSON lines with a `prompt` each, and an `output_tokens` if they like. Throws ConfigError with the line's number. */
export function customDataset(text: string, count: number, outputLen: number | null): SampleRequest[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  const requests = lines.map((line, index) => {
    const entry = parseJson(line) as { prompt?: unknown; output_tokens?: unknown } | null;
    if (typeof entry?.prompt !== 'string') {
      throw new ConfigError(`Line ${index + 1} of the custom dataset must be {"prompt": "…"}.`);
    }
    const ownLength = typeof entry.output_tokens === 'number' ? entry.output_tokens : 256;
    return { prompt: entry.prompt, promptLen: null, outputLen: outputLen ?? ownLength };
  });
  return repeatTo(requests, count, 'custom');
}

function repeatTo(requests: readonly SampleRequest[], count: number, name: string): SampleRequest[] {
  if (requests.length === 0) throw new ConfigError(`The ${name} dataset has no prompt.`);
  return Array.from({ length: count }, (_, index) => requests[index % requests.length]!);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
