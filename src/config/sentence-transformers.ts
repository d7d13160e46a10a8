import { join } from 'node:path';
import type { SeqPoolingType } from '../pooling/pooling-config.ts';
import { ConfigError } from './config-error.ts';
import { isJsonObject, type JsonObject } from './parse-value.ts';
import { readJsonFile } from './read-json-file.ts';

/** What a Sentence Transformers checkpoint says of itself in the files beside config.json. */
export interface SentenceTransformers {
  seqPoolingType: SeqPoolingType;
  /** A Normalize module follows. */
  normalizes: boolean;
  /** Longest text that the model was trained with; null: config.json decides. */
  maxSeqLength: number | null;
}

/** A member that is true, in files up to version 5, or the value of `pooling_mode`, from then on. */
const POOLING_MODES: Readonly<Record<string, SeqPoolingType>> = {
  pooling_mode_cls_token: 'CLS',
  pooling_mode_mean_tokens: 'MEAN',
  pooling_mode_lasttoken: 'LAST',
  cls: 'CLS',
  mean: 'MEAN',
  lasttoken: 'LAST',
};

/** Short names of the modules whose work is done here. */
const KNOWN_MODULES = ['Transformer', 'Pooling', 'Normalize'];

/**
 * Reads modules.json and what it points to (1_Pooling/config.json, sentence_bert_config.json); null where the model is no Sentence
 * Transformers checkpoint.
 *
 * @throws ConfigError for a module or a pooling mode that is not served
 */
export async function readSentenceTransformers(folder: string): Promise<SentenceTransformers | null> {
  const modules = await readModules(folder);
  const pooling = modules.find(({ name }) => name === 'Pooling');
  if (pooling === undefined) return null;
  const unknown = modules.find(({ name }) => !KNOWN_MODULES.includes(name));
  if (unknown !== undefined) {
    throw new ConfigError(
      `${folder}/modules.json has a module of type "${unknown.type}"; served are ${KNOWN_MODULES.join(', ')}.`,
    );
  }
  return {
    seqPoolingType: await readPoolingMode(join(folder, pooling.path, 'config.json')),
    normalizes: modules.some(({ name }) => name === 'Normalize'),
    maxSeqLength: await readMaxSeqLength(folder),
  };
}

interface Module {
  type: string;
  /** The last part of the type: both "sentence_transformers.models.Pooling" and longer paths are met. */
  name: string;
  path: string;
}

async function readModules(folder: string): Promise<Module[]> {
  const file = Bun.file(join(folder, 'modules.json'));
  if (!(await file.exists())) return [];
  const list: unknown = await file.json().catch(() => null);
  if (!Array.isArray(list) || !list.every(isJsonObject)) {
    throw new ConfigError(`${folder}/modules.json must be a list of modules.`);
  }
  return list.map(({ type, path }) => {
    const text = String(type);
    // A path from a file of the model must stay in its folder.
    const inside = typeof path === 'string' && /^[\w.-]*$/.test(path) && path !== '..' ? path : '';
    return { type: text, name: text.split('.').at(-1)!, path: inside };
  });
}

async function readPoolingMode(path: string): Promise<SeqPoolingType> {
  const config: JsonObject = (await readJsonFile(path)) ?? {};
  const flags = Object.keys(config).filter((key) => key.startsWith('pooling_mode_') && config[key] === true);
  const modes = typeof config.pooling_mode === 'string' ? [config.pooling_mode] : flags;
  const type = modes.length === 1 ? POOLING_MODES[modes[0]!] : undefined;
  if (type !== undefined) return type;
  const found = modes.length === 0 ? 'sets no pooling mode' : `sets ${modes.join(' and ')}`;
  throw new ConfigError(`${path} ${found}; served is one of ${Object.keys(POOLING_MODES).join(', ')}.`);
}

/** Of the model's own file, else what its tokenizer was saved with. */
async function readMaxSeqLength(folder: string): Promise<number | null> {
  const model = await readJsonFile(join(folder, 'sentence_bert_config.json'));
  const tokenizer = await readJsonFile(join(folder, 'tokenizer_config.json'));
  const isLength = (value: unknown) => Number.isSafeInteger(value) && (value as number) > 0;
  return ([model?.max_seq_length, tokenizer?.model_max_length].find(isLength) as number | undefined) ?? null;
}
