import { join } from 'node:path';
import type { DefaultSamplingParams } from '../sampling/sampling-params.ts';
import { SAMPLING_RANGES } from '../sampling/sampling-ranges.ts';
import { ConfigError, UsageError } from './config-error.ts';
import type { JsonObject } from './parse-value.ts';
import { readJsonFile } from './read-json-file.ts';

/** By generation_config.json's names, the API's. */
const DEFAULTS: Readonly<Record<string, keyof DefaultSamplingParams>> = {
  temperature: 'temperature',
  top_p: 'top_p',
  top_k: 'top_k',
  min_p: 'min_p',
  repetition_penalty: 'repetition_penalty',
  max_new_tokens: 'max_tokens',
};

export interface GenerationDefaults {
  samplingParams: DefaultSamplingParams;
  /**
   * The most output tokens of any request, or null. As in vLLM, a number that the operator chose (by an override, or by naming a folder) is a limit;
   * one that came with the model is a default alone.
   */
  maxTokensLimit: number | null;
  /** Of the file; none with an absent file. */
  eosTokenIds: number[];
}

/**
 * What the model's makers and the operator say about requests that leave a parameter out: `--generation-config` chooses the file,
 * `--override-generation-config` goes before it. The file's end-of-text ids count whatever is chosen, since they belong to the model.
 *
 * @param choice auto, vllm or a folder
 * @throws ConfigError that names the file, UsageError that names the member of the override
 */
export async function readGenerationDefaults(
  folder: string,
  choice: string,
  override: Readonly<JsonObject>,
): Promise<GenerationDefaults> {
  const named = choice === 'auto' || choice === 'vllm' ? null : choice;
  const path = join(named ?? folder, 'generation_config.json');
  const file = await readJsonFile(path);
  if (file === null && named !== null) throw new ConfigError(`--generation-config: ${path} does not exist.`);
  const fields = file ?? {};
  const overriding = overridingParams(override);
  const merged = { ...(choice === 'vllm' ? {} : samplingParams(fields, path)), ...overriding };
  return {
    samplingParams: merged,
    maxTokensLimit: (named === null ? overriding : merged).max_tokens ?? null,
    eosTokenIds: tokenIds(fields.eos_token_id, path),
  };
}

function samplingParams(fields: Readonly<JsonObject>, source: string): DefaultSamplingParams {
  const params: DefaultSamplingParams = {};
  for (const [name, param] of Object.entries(DEFAULTS)) {
    const value = fields[name];
    const { accepts, rule } = SAMPLING_RANGES[param];
    if (value === undefined || value === null) continue;
    if (typeof value !== 'number' || !accepts(value)) {
      throw new ConfigError(`${source}: ${name} must be ${rule}, not ${JSON.stringify(value)}.`);
    }
    params[param] = value;
  }
  return params;
}

function overridingParams(override: Readonly<JsonObject>): DefaultSamplingParams {
  const flag = '--override-generation-config';
  const { max_tokens: maxTokens, ...rest } = override;
  const fields = maxTokens === undefined ? rest : { ...rest, max_new_tokens: maxTokens };
  const unknown = Object.keys(fields).find((name) => !Object.hasOwn(DEFAULTS, name));
  if (unknown !== undefined) {
    throw new UsageError(`${flag} has no "${unknown}"; it sets ${Object.keys(DEFAULTS).join(', ')}.`);
  }
  return samplingParams(fields, flag);
}

function tokenIds(value: unknown, source: string): number[] {
  if (value === undefined || value === null) return [];
  const ids = Array.isArray(value) ? value : [value];
  if (!ids.every((id) => Number.isInteger(id) && id >= 0)) {
    throw new ConfigError(`${source}: eos_token_id must be one or more token ids, not ${JSON.stringify(value)}.`);
  }
  return ids;
}
