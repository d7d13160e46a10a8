import type { DevicePtr } from '../device/device.ts';
import { ClassificationHead } from '../layers/classification-head.ts';
import { EncoderSelfAttention } from '../layers/encoder-attention.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import { LayerNorm } from '../layers/layer-norm.ts';
import { fusedSources } from '../layers/linear.ts';
import { GatedMLP } from '../layers/mlp.ts';
import type { PoolerHead } from '../layers/pooler-head.ts';
import { VocabEmbedding } from '../layers/vocab-embedding.ts';
import type { WorkspaceBuffer } from '../layers/workspace.ts';
import { ConfigFields } from './config-fields.ts';
import { type EncoderEmbeddings, type EncoderLayer, EncoderModel, hiddenBytes, ResidualSum } from './encoder.ts';
import type { ModelContext, PoolingModelFactory } from './model-context.ts';

/** Of config.json beyond the common fields. */
interface ModernBertConfig {
  eps: number;
  normBias: boolean;
  mlpBias: boolean;
  attentionBias: boolean;
  classifierBias: boolean;
  classifierAct: string;
}

/** ModernBERT: rotary positions, norms before the sublayers, gated feed-forward; most layers see only their neighbourhood. */
export const createModel: PoolingModelFactory = (context, { convert, labels }) => {
  const { config, weights } = context;
  const fields = new ConfigFields(config.raw, 'config.json');
  const own: ModernBertConfig = {
    eps: fields.positiveNumber('norm_eps', 1e-5),
    normBias: fields.boolean('norm_bias', false),
    mlpBias: config.mlpBias,
    attentionBias: config.attentionBias,
    classifierBias: fields.boolean('classifier_bias', false),
    classifierAct: fields.string('classifier_activation', 'gelu'),
  };
  const prefix = weights.has('model.embeddings.tok_embeddings.weight') ? 'model.' : '';
  const norm = (name: string) => new LayerNorm(context, `${prefix}${name}`, config.hiddenSize, own.eps, own.normBias);
  return new EncoderModel(context, {
    embeddings: new ModernBertEmbeddings(context, `${prefix}embeddings.tok_embeddings`, norm('embeddings.norm')),
    layers: Array.from(
      { length: config.numHiddenLayers },
      (_, index) => new ModernBertLayer(context, `${prefix}layers.${index}`, index, own),
    ),
    finalNorm: norm('final_norm'),
    head: convert === 'classify' ? createClassifier(context, own, labels.length) : null,
    usesTokenTypes: false,
  });
};

function createClassifier(context: ModelContext, own: ModernBertConfig, numLabels: number): PoolerHead {
  return new ClassificationHead(context, {
    hiddenSize: context.config.hiddenSize,
    numLabels,
    dense: {
      prefix: 'head.dense',
      bias: own.classifierBias,
      act: own.classifierAct,
      norm: { prefix: 'head.norm', eps: own.eps, bias: own.normBias },
    },
    classifier: 'classifier',
    classifierBias: true,
    maxRows: context.maxLogitRows,
  });
}

class ModernBertEmbeddings implements EncoderEmbeddings {
  private readonly words: VocabEmbedding;

  constructor(
    context: ModelContext,
    prefix: string,
    private readonly norm: LayerNorm,
  ) {
    this.words = new VocabEmbedding(context, prefix, context.config.vocabSize, context.config.hiddenSize);
  }

  forward(inputIds: DevicePtr, out: DevicePtr, { numTokens }: ForwardContext): void {
    this.words.forward(inputIds, out, numTokens);
    this.norm.forward(out, out, numTokens);
  }
}

class ModernBertLayer implements EncoderLayer {
  /** null in the first layer: the embeddings are normed already. */
  private readonly attentionNorm: LayerNorm | null;
  private readonly attention: EncoderSelfAttention;
  private readonly mlpNorm: LayerNorm;
  private readonly mlp: GatedMLP;
  private readonly sum: ResidualSum;
  private readonly sublayer: WorkspaceBuffer;

  constructor(context: ModelContext, prefix: string, index: number, own: ModernBertConfig) {
    const { config, rotaryEmbeddings, maxNumTokens } = context;
    const { hiddenSize, intermediateSize, hiddenAct, numAttentionHeads, headDim } = config;
    const rope = config.layerRopes[index] ?? null;
    const norm = (name: string) => new LayerNorm(context, `${prefix}.${name}`, hiddenSize, own.eps, own.normBias);
    this.attentionNorm = index === 0 ? null : norm('attn_norm');
    this.mlpNorm = norm('mlp_norm');
    this.attention = new EncoderSelfAttention(context, {
      hiddenSize,
      numHeads: numAttentionHeads,
      headDim,
      qkv: fusedSources(`${prefix}.attn.Wqkv`, [hiddenSize, hiddenSize, hiddenSize]),
      qkvBias: own.attentionBias,
      out: `${prefix}.attn.Wo`,
      outBias: own.attentionBias,
      rotary: rope && rotaryEmbeddings.get(rope),
      // `local_attention` is the whole width, half of it on either side.
      reach: Math.floor(config.slidingWindows[index]! / 2),
      maxNumTokens,
    });
    this.mlp = new GatedMLP(context, {
      hiddenSize,
      intermediateSize,
      hiddenAct,
      bias: own.mlpBias,
      gateUp: fusedSources(`${prefix}.mlp.Wi`, [intermediateSize, intermediateSize]),
      down: `${prefix}.mlp.Wo`,
      maxNumTokens,
    });
    this.sum = new ResidualSum(context);
    this.sublayer = context.workspace.persistent('sublayer', hiddenBytes(context));
  }

  forward(hidden: DevicePtr, context: ForwardContext): void {
    const { numTokens } = context;
    const sublayer = this.sublayer.ptr;
    this.attentionNorm?.forward(hidden, sublayer, numTokens);
    this.attention.forward(this.attentionNorm === null ? hidden : sublayer, sublayer, context);
    this.sum.add(sublayer, hidden, numTokens);
    this.mlpNorm.forward(hidden, sublayer, numTokens);
    this.mlp.forward(sublayer, sublayer, numTokens);
    this.sum.add(sublayer, hidden, numTokens);
  }
}
