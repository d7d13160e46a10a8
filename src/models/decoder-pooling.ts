import { ClassificationHead } from '../layers/classification-head.ts';
import type { TensorView, WeightSource } from '../loader/weight-source.ts';
import { ConfigFields } from './config-fields.ts';
import { numLabelsOf } from './labels.ts';
import type { PoolingModel } from './model.ts';
import type { ModelContext, ModelFactory, PoolingModelFactory } from './model-context.ts';

/** A decoder as an embedding model or, with a `score` head in the checkpoint, as a classifier; its LM head is not loaded. */
export function poolDecoder(createDecoder: ModelFactory): PoolingModelFactory {
  return (context, task): PoolingModel => {
    checkCausal(context);
    const decoder = createDecoder({ ...context, weights: baseModelWeights(context.weights), lmHead: false });
    return {
      classifier: task === 'classify' ? createScoreHead(context) : null,
      kvCacheSpecs: () => decoder.kvCacheSpecs(),
      bindKvCache: (caches) => decoder.bindKvCache(caches),
      positionOffset: (numPromptTokens) => decoder.positionOffset?.(numPromptTokens) ?? 0,
      forward: (inputIds, forwardContext) => decoder.forward(inputIds, forwardContext),
    };
  };
}

function createScoreHead(context: ModelContext): ClassificationHead {
  return new ClassificationHead(context, {
    hiddenSize: context.config.hiddenSize,
    numLabels: numLabelsOf(context.config),
    dense: null,
    classifier: 'score',
    classifierBias: false,
    maxRows: context.maxLogitRows,
  });
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
