import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { LoadError } from '../loader/load-error.ts';

/** One entry of `added_tokens` in tokenizer.json. */
export interface AddedTokenConfig {
  id: number;
  content: string;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
  special: boolean;
}

/** What Bao itself reads of tokenizer.json; the rest is for the tokenizer libraries. */
export interface TokenizerJson {
  added_tokens: AddedTokenConfig[];
  model: { type?: string; vocab: unknown; byte_fallback?: boolean; [field: string]: unknown };
  decoder: DecoderConfig | null;
  pre_tokenizer: unknown;
  [field: string]: unknown;
}

/** A decoder of tokenizer.json; `decoders` is set for the type "Sequence". */
export interface DecoderConfig {
  type: string;
  decoders?: DecoderConfig[];
  [field: string]: unknown;
}

/** The tokenizer of a model folder as its files describe it. */
export interface TokenizerFiles {
  folder: string;
  /** tokenizer.json with the added tokens of tokenizer_config.json. */
  json: TokenizerJson;
  /** The text of `json`. */
  jsonText: string;
  /** tokenizer_config.json, {} when there is none. */
  config: Readonly<Record<string, unknown>>;
  /** Texts of bos_token, eos_token, pad_token, …, from special_tokens_map.json and over it tokenizer_config.json. */
  specialTokens: ReadonlyMap<string, string>;
  /** `additional_special_tokens` of the same files. */
  additionalSpecialTokens: readonly string[];
}

/**
 * Reads tokenizer.json, tokenizer_config.json and special_tokens_map.json.
 *
 * @throws LoadError that names the file
 */
export function readTokenizerFiles(folder: string): TokenizerFiles {
  const path = join(folder, 'tokenizer.json');
  if (!existsSync(path)) {
    throw new LoadError(
      `${folder}: there is no tokenizer.json; add one, or serve token ids only with --skip-tokenizer-init.`,
    );
  }
  const text = readFileSync(path, 'utf8');
  const json = parseObject(path, text) as unknown as TokenizerJson;
  if (typeof json.model !== 'object' || json.model === null) {
    throw new LoadError(`${path}: "model" is missing; this is not a tokenizer of the tokenizers library.`);
  }
  json.added_tokens ??= [];
  const config = readOptional(join(folder, 'tokenizer_config.json'));
  const specialTokensMap = readOptional(join(folder, 'special_tokens_map.json'));
  const numBefore = json.added_tokens.length;
  json.added_tokens.push(...addedTokensOfConfig(json, config));
  return {
    folder,
    json,
    jsonText: json.added_tokens.length === numBefore ? text : JSON.stringify(json),
    config,
    specialTokens: new Map([...namedTokens(specialTokensMap), ...namedTokens(config)]),
    additionalSpecialTokens: [...tokenList(specialTokensMap), ...tokenList(config)],
  };
}

/** The text of a token given as a string or as an AddedToken object; null for anything else. */
export function tokenText(value: unknown): string | null {
  if (typeof value === 'string') return value;
  if (typeof value !== 'object' || value === null) return null;
  const content = (value as { content?: unknown }).content;
  return typeof content === 'string' ? content : null;
}

/** Tokens of `added_tokens_decoder` (id to token) that tokenizer.json does not have, as transformers adds them on load. */
function addedTokensOfConfig(json: TokenizerJson, config: Readonly<Record<string, unknown>>): AddedTokenConfig[] {
  const decoder = config.added_tokens_decoder;
  if (typeof decoder !== 'object' || decoder === null) return [];
  const known = new Set(json.added_tokens.map((token) => token.content));
  const added: AddedTokenConfig[] = [];
  for (const [id, value] of Object.entries(decoder)) {
    const content = tokenText(value);
    if (content === null || known.has(content) || !/^\d+$/.test(id)) continue;
    const token = value as Partial<AddedTokenConfig>;
    added.push({
      id: Number(id),
      content,
      single_word: token.single_word ?? false,
      lstrip: token.lstrip ?? false,
      rstrip: token.rstrip ?? false,
      normalized: token.normalized ?? false,
      special: token.special ?? false,
    });
  }
  return added;
}

function namedTokens(fields: Readonly<Record<string, unknown>>): [string, string][] {
  const named: [string, string][] = [];
  for (const [field, value] of Object.entries(fields)) {
    const text = /^[a-z]+_token$/.test(field) ? tokenText(value) : null;
    if (text !== null) named.push([field, text]);
  }
  return named;
}

function tokenList(fields: Readonly<Record<string, unknown>>): string[] {
  const list = fields.additional_special_tokens;
  if (!Array.isArray(list)) return [];
  return list.map(tokenText).filter((text) => text !== null);
}

function readOptional(path: string): Record<string, unknown> {
  return existsSync(path) ? parseObject(path, readFileSync(path, 'utf8')) : {};
}

function parseObject(path: string, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new LoadError(`${path}: not valid JSON: ${(error as Error).message}.`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new LoadError(`${path}: not a JSON object.`);
  }
  return value as Record<string, unknown>;
}
