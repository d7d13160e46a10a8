import type { HfConfig } from '../models/hf-config.ts';
import { labelsOf } from '../models/labels.ts';
import { type Architecture, findArchitecture } from '../models/registry.ts';
import {
  type ClassActivation,
  type PoolingConfig,
  type SeqPoolingType,
  supportedPoolingTasks,
} from '../pooling/pooling-config.ts';
import { ConfigError } from './config-error.ts';
import type { FlagValues } from './flags/index.ts';
import { isJsonObject } from './parse-value.ts';
import { type PoolerFlags, readPoolerConfig } from './pooler-config.ts';
import { type NamedScoreTokens, readScoreTokens, resolveScoreTokens } from './score-tokens.ts';
import { readTextMembers, type SentenceTransformers } from './sentence-transformers.ts';

type Runner = Pick<FlagValues, 'runner' | 'convert' | 'poolerConfig'>;

/**
 * How the model is pooled, by vLLM's rules: `--runner` and `--convert`, else its files and its architecture; null: it generates.
 *
 * @param tokenizerFolder null: there is no tokenizer
 * @throws ConfigError for a runner that the model isn't made for, UsageError for a wrong `--pooler-config`
 */
export function resolvePooling(
  flags: Runner,
  hf: HfConfig,
  sentenceTransformers: SentenceTransformers | null,
  tokenizerFolder: string | null,
): PoolingConfig | null {
  const pooler = readPoolerConfig(flags.poolerConfig);
  // What isn't known here may be a plugin's model, and plugins come later: it generates, as theirs do.
  const architecture = findArchitecture(hf.architectures);
  if (chooseRunner(flags, architecture, sentenceTransformers) === 'generate') {
    if (Object.keys(flags.poolerConfig).length > 0) {
      throw new ConfigError('--pooler-config is for models that are pooled: it needs --runner pooling.');
    }
    return null;
  }
  const isEncoder = architecture?.kind === 'encoder';
  const convert = chooseConvert(flags, architecture);
  const named = convert === 'classify' && !isEncoder ? readScoreTokens(hf) : null;
  const labels = convert === 'classify' ? labelsFor(hf, named) : [];
  const config: PoolingConfig = {
    convert,
    task: pooler.task ?? convert,
    seqPoolingType: pooler.seqPoolingType ?? defaultPooling(convert, isEncoder, hf, sentenceTransformers),
    useActivation: pooler.useActivation ?? (convert === 'classify' || (sentenceTransformers?.normalizes ?? true)),
    dimensions: pooler.dimensions,
    matryoshka: matryoshkaOf(hf),
    classActivation: classActivationOf(hf, labels.length),
    logitMean: pooler.logitMean,
    logitSigma: pooler.logitSigma,
    labels,
    scoreTokens: named && resolveScoreTokens(named, tokenizerFolder),
    dense: convert === 'embed' ? (sentenceTransformers?.dense ?? []) : [],
    usesSepToken: usesSepToken(hf, named !== null),
    lowerCases: sentenceTransformers?.lowerCases ?? false,
    prompts: convert === 'embed' ? promptsOf(hf, sentenceTransformers) : null,
    isEncoder,
  };
  checkPooling(config, pooler);
  return config;
}

function chooseRunner(
  { runner, convert }: Runner,
  architecture: Architecture | null,
  sentenceTransformers: SentenceTransformers | null,
): 'generate' | 'pooling' {
  const hasLmHead = architecture === null || architecture.head === 'lm';
  if (runner === 'draft')
    throw new ConfigError('--runner draft is not there: a draft model runs beside the one it drafts for.');
  if (runner === 'generate' && !hasLmHead) {
    throw new ConfigError(
      `${architecture.name} has no LM head, so it does not generate: serve it with --runner pooling.`,
    );
  }
  if (runner !== 'auto') return runner;
  const isPooled = convert === 'embed' || convert === 'classify' || sentenceTransformers !== null || !hasLmHead;
  return isPooled ? 'pooling' : 'generate';
}

function chooseConvert({ convert }: Runner, architecture: Architecture | null): 'embed' | 'classify' {
  if (convert === 'embed' || convert === 'classify') return convert;
  if (convert === 'none' && architecture?.head === 'lm') {
    throw new ConfigError(
      `${architecture.name} is made to generate: --runner pooling needs --convert embed or classify.`,
    );
  }
  return architecture?.head === 'classifier' ? 'classify' : 'embed';
}

function defaultPooling(
  convert: 'embed' | 'classify',
  isEncoder: boolean,
  { raw }: HfConfig,
  sentenceTransformers: SentenceTransformers | null,
): SeqPoolingType {
  if (convert === 'embed' && sentenceTransformers !== null) return sentenceTransformers.seqPoolingType;
  if (convert === 'classify' && isEncoder && raw.classifier_pooling === 'mean') return 'MEAN';
  return isEncoder ? 'CLS' : 'LAST';
}

function labelsFor(hf: HfConfig, named: NamedScoreTokens | null): string[] {
  if (named === null) return labelsOf(hf);
  return named.method === 'from_2_way_softmax' ? ['LABEL_0'] : named.tokens.map((_, i) => `LABEL_${i}`);
}

/** Cross encoders are trained with what the tokenizer puts between two texts, generating models with the prompt that a template makes. */
function usesSepToken({ raw }: HfConfig, isGenerating: boolean): boolean {
  return typeof raw.use_sep_token === 'boolean' ? raw.use_sep_token : !isGenerating;
}

/** The model's own word before Sentence Transformers' file. */
function promptsOf({ raw }: HfConfig, sentenceTransformers: SentenceTransformers | null): PoolingConfig['prompts'] {
  return readTextMembers(raw.task_instructions) ?? sentenceTransformers?.prompts ?? null;
}

function matryoshkaOf({ raw }: HfConfig): PoolingConfig['matryoshka'] {
  const dimensions = raw.matryoshka_dimensions;
  if (Array.isArray(dimensions) && dimensions.every((each) => Number.isSafeInteger(each) && each > 0)) {
    return { dimensions: dimensions as number[] };
  }
  return raw.is_matryoshka === true ? { dimensions: null } : null;
}

/** By the cross encoder's own word, else by the kind of its problem, else by the number of classes. */
function classActivationOf({ raw }: HfConfig, numLabels: number): ClassActivation {
  const sentenceTransformers = isJsonObject(raw.sentence_transformers) ? raw.sentence_transformers : {};
  const name = sentenceTransformers.activation_fn ?? raw.sbert_ce_default_activation_function;
  if (typeof name === 'string') {
    const known = CLASS_ACTIVATIONS[name.split('.').at(-1)!];
    if (known !== undefined) return known;
    throw new ConfigError(
      `config.json asks for the activation "${name}"; served are ${Object.keys(CLASS_ACTIVATIONS).join(', ')}.`,
    );
  }
  if (raw.problem_type === 'regression') return 'identity';
  if (raw.problem_type === 'multi_label_classification') return 'sigmoid';
  return numLabels < 2 ? 'sigmoid' : 'softmax';
}

/** By torch's class names. */
const CLASS_ACTIVATIONS: Readonly<Record<string, ClassActivation>> = {
  Sigmoid: 'sigmoid',
  Softmax: 'softmax',
  Identity: 'identity',
};

function checkPooling(config: PoolingConfig, { task, dimensions }: PoolerFlags): void {
  const tasks = supportedPoolingTasks(config);
  if (task !== null && !tasks.includes(task)) {
    throw new ConfigError(`--pooler-config.task ${task} is not what this model does; it does ${tasks.join(', ')}.`);
  }
  if (dimensions !== null && config.matryoshka === null) {
    throw new ConfigError(
      '--pooler-config.dimensions needs a model whose embeddings may be cut (is_matryoshka or matryoshka_dimensions in its config.json, or in --hf-overrides).',
    );
  }
}
