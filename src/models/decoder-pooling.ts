import { ClassificationHead } from '../layers/classification-head.ts';
import type { TensorView, WeightSource } from '../loader/weight-source.ts';
import { ConfigFields } from './config-fields.ts';
import type { PoolingModel } from './model.ts';
import type { ModelContext, ModelFactory, PooledAs, PoolingModelFactory } from './model-context.ts';
import { withScoreFromTokens } from './score-from-tokens.ts';

/**
 * A decoder as an embedding model or as a classifier: by a `score` head in the checkpoint, or by its answers' tokens. Its LM head is not loaded.
 */
export function poolDecoder(createDecoder: ModelFactory): PoolingModelFactory {
  return (context, pooledAs): PoolingModel => {
    checkCausal(context);
    const weights = baseModelWeights(context.weights);
    const decoder = createDecoder({ ...context, weights, lmHead: false });
    return {
      head: pooledAs.convert === 'classify' ? createScoreHead({ ...context, weights }, pooledAs) : null,
      kvCacheSpecs: () => decoder.kvCacheSpecs(),
      bindKvCache: (caches) => decoder.bindKvCache(caches),
      positionOffset: (numPromptTokens) => decoder.positionOffset?.(numPromptTokens) ?? 0,
      forward: (inputIds, forwardContext) => decoder.forward(inputIds, forwardContext),
    };
  };
}

function createScoreHead(context: ModelContext, { labels, scoreTokens }: PooledAs): ClassificationHead {
  const weights =
    scoreTokens === null ? context.weights : withScoreFromTokens(context.weights, context.config, scoreTokens);
  return new ClassificationHead(
    { ...context, weights },
    {
      hiddenSize: context.config.hiddenSize,
      numLabels: labels.length,
      dense: null,
      classifier: 'score',
      classifierBias: scoreTokens === null && weights.has('score.bias'),
      maxRows: context.maxLogitRows,
    },
  );
}

/** Some embedding models are decoders whose attention was opened to both sides. */
function checkCausal({ config }: ModelContext): void {
  const fields = new ConfigFields(config.raw, 'config.json');
  if (!fields.boolean('is_causal', true))
    throw fields.error('is_causal', 'is false; decoders are served as causal models');
  if (fields.boolean('use_bidirectional_attention', false)) {
    throw fields.error('use_bidirectional_attention', 'is true; decoders are served as causal models');
  }
}

/** Checkpoints of a base model (`Qwen3Model`) name its tensors without the `model.` that a head beside it brings. */
function baseModelWeights(weights: WeightSource): WeightSource {
  if (weights.has('model.embed_tokens.weight') || !weights.has('embed_tokens.weight')) return weights;
  const stored = (name: string) => name.replace(/^model\./, '');
  return {
    totalBytes: weights.totalBytes,
    has: (name) => weights.has(stored(name)),
    get: (name: string, shape?: readonly number[]): TensorView => weights.get(stored(name), shape),
    names: () => weights.names(),
    close: () => weights.close(),
  };
}
