import { join } from 'node:path';
import type { DenseModule, SeqPoolingType } from '../pooling/pooling-config.ts';
import { ConfigError } from './config-error.ts';
import { isJsonObject, type JsonObject } from './parse-value.ts';
import { readJsonFile } from './read-json-file.ts';

/** What a Sentence Transformers checkpoint says of itself in the files beside config.json. */
export interface SentenceTransformers {
  seqPoolingType: SeqPoolingType;
  dense: DenseModule[];
  /** A Normalize module follows. */
  normalizes: boolean;
  /** Longest text that the model was trained with; null: config.json decides. */
  maxSeqLength: number | null;
  /** Texts are made lower case before they are tokenized. */
  lowerCases: boolean;
  /** What goes before a text, by what the text is for; null: none. */
  prompts: Record<string, string> | null;
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
const KNOWN_MODULES = ['Transformer', 'Pooling', 'Dense', 'Normalize'];

/** Short names of torch's activation classes, with transformers' names for them; null: none. */
const ACTIVATIONS: Readonly<Record<string, string | null>> = {
  Identity: null,
  Tanh: 'tanh',
  ReLU: 'relu',
  GELU: 'gelu',
  SiLU: 'silu',
};

/** Files that name the longest text, by the families that Sentence Transformers had apart. */
const TRANSFORMER_FILES = ['bert', 'roberta', 'distilbert', 'camembert', 'albert', 'xlm-roberta', 'xlnet'].map(
  (family) => `sentence_${family}_config.json`,
);

/**
 * Reads modules.json and what it points to (1_Pooling/config.json, 2_Dense/config.json, sentence_bert_config.json), and
 * config_sentence_transformers.json; null where the model is no Sentence Transformers checkpoint.
 *
 * @throws ConfigError for a module or a pooling mode that is not served
 */
export async function readSentenceTransformers(folder: string): Promise<SentenceTransformers | null> {
  const modules = await readModules(folder);
  const pooling = modules.find(({ name }) => name === 'Pooling');
  if (pooling === undefined) return null;
  checkModules(folder, modules);
  const transformer = await readTransformer(folder);
  const dense: DenseModule[] = [];
  for (const module of modules) if (module.name === 'Dense') dense.push(await readDense(folder, module.path));
  return {
    seqPoolingType: await readPoolingMode(join(folder, pooling.path, 'config.json')),
    dense,
    normalizes: modules.some(({ name }) => name === 'Normalize'),
    maxSeqLength: await readMaxSeqLength(folder, transformer),
    lowerCases: transformer.do_lower_case === true,
    prompts: await readPrompts(folder),
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

/** Each kind that is known, in the one order that makes sense. */
function checkModules(folder: string, modules: readonly Module[]): void {
  const unknown = modules.find(({ name }) => !KNOWN_MODULES.includes(name));
  if (unknown !== undefined) {
    throw new ConfigError(
      `${folder}/modules.json has a module of type "${unknown.type}"; served are ${KNOWN_MODULES.join(', ')}.`,
    );
  }
  const places = modules.map(({ name }) => KNOWN_MODULES.indexOf(name));
  if (places.every((place, i) => i === 0 || place >= places[i - 1]!)) return;
  throw new ConfigError(
    `${folder}/modules.json has its modules in the order ${modules.map(({ name }) => name).join(', ')}; served is ${KNOWN_MODULES.join(', ')}.`,
  );
}

async function readDense(folder: string, path: string): Promise<DenseModule> {
  const file = join(folder, path, 'config.json');
  const config: JsonObject = (await readJsonFile(file)) ?? {};
  const size = (name: string) => {
    const value = config[name];
    if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
    throw new ConfigError(`${file}: ${name} must be a whole number of at least 1, not ${JSON.stringify(value)}.`);
  };
  const input = config.module_input_name ?? 'sentence_embedding';
  if (input !== 'sentence_embedding') {
    throw new ConfigError(`${file}: module_input_name is ${JSON.stringify(input)}; served is "sentence_embedding".`);
  }
  // Sentence Transformers' default.
  const name = String(config.activation_function ?? 'Tanh');
  const act = ACTIVATIONS[name.split('.').at(-1)!];
  if (act === undefined) {
    throw new ConfigError(
      `${file} asks for the activation "${name}"; served are ${Object.keys(ACTIVATIONS).join(', ')}.`,
    );
  }
  return { path, inFeatures: size('in_features'), outFeatures: size('out_features'), bias: config.bias !== false, act };
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

/** The first there is of the files with the Transformer module's options. */
async function readTransformer(folder: string): Promise<JsonObject> {
  for (const name of TRANSFORMER_FILES) {
    const config = await readJsonFile(join(folder, name));
    if (config !== null) return config;
  }
  return {};
}

/** Of the model's own file, else what its tokenizer was saved with. */
async function readMaxSeqLength(folder: string, transformer: JsonObject): Promise<number | null> {
  const tokenizer = await readJsonFile(join(folder, 'tokenizer_config.json'));
  const isLength = (value: unknown) => Number.isSafeInteger(value) && (value as number) > 0;
  return ([transformer.max_seq_length, tokenizer?.model_max_length].find(isLength) as number | undefined) ?? null;
}

async function readPrompts(folder: string): Promise<Record<string, string> | null> {
  const config = await readJsonFile(join(folder, 'config_sentence_transformers.json'));
  return readTextMembers(config?.prompts);
}

/** The members of an object that are texts; null where there is none. */
export function readTextMembers(value: unknown): Record<string, string> | null {
  if (!isJsonObject(value)) return null;
  const texts = Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string');
  return texts.length === 0 ? null : Object.fromEntries(texts);
}
