import type { DevicePtr } from '../device/device.ts';
import { ClassificationHead } from '../layers/classification-head.ts';
import { DenseMLP } from '../layers/dense-mlp.ts';
import { EncoderSelfAttention } from '../layers/encoder-attention.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import { LayerNorm } from '../layers/layer-norm.ts';
import { separateSources } from '../layers/linear.ts';
import type { PoolerHead } from '../layers/pooler-head.ts';
import { VocabEmbedding } from '../layers/vocab-embedding.ts';
import type { WorkspaceBuffer } from '../layers/workspace.ts';
import { ConfigFields } from './config-fields.ts';
import { type EncoderEmbeddings, type EncoderLayer, EncoderModel, hiddenBytes, ResidualSum } from './encoder.ts';
import type { ModelContext, PooledAs, PoolingModelFactory } from './model-context.ts';

/** Where BERT and its descendants differ. */
export interface BertVariant {
  /** Module of the encoder in a checkpoint that has a head beside it. */
  baseModule: string;
  createClassifier(context: ModelContext, prefix: string, numLabels: number): PoolerHead;
}

/** BERT: learned positions, token types, a norm behind each addition. */
const BERT: BertVariant = {
  baseModule: 'bert',
  createClassifier: (context, prefix, numLabels) =>
    createHead(context, numLabels, { dense: `${prefix}pooler.dense`, classifier: 'classifier' }),
};

export const createModel: PoolingModelFactory = (context, pooledAs) => createBert(context, pooledAs, BERT);

export function createBert(context: ModelContext, pooledAs: PooledAs, variant: BertVariant): EncoderModel {
  const { config, weights } = context;
  const fields = new ConfigFields(config.raw, 'config.json');
  checkVariant(fields);
  const eps = fields.positiveNumber('layer_norm_eps', 1e-12);
  const module = `${variant.baseModule}.`;
  const prefix = weights.has(`${module}embeddings.word_embeddings.weight`) ? module : '';
  return new EncoderModel(context, {
    embeddings: new BertEmbeddings(context, `${prefix}embeddings`, eps, fields),
    layers: Array.from(
      { length: config.numHiddenLayers },
      (_, index) => new BertLayer(context, `${prefix}encoder.layer.${index}`, eps),
    ),
    finalNorm: null,
    head: pooledAs.convert === 'classify' ? variant.createClassifier(context, prefix, pooledAs.labels.length) : null,
    usesTokenTypes: true,
  });
}

/** dense, tanh, classes: over the first token's hidden state. */
export function createHead(
  context: ModelContext,
  numLabels: number,
  modules: { dense: string; classifier: string },
): ClassificationHead {
  return new ClassificationHead(context, {
    hiddenSize: context.config.hiddenSize,
    numLabels,
    dense: { prefix: modules.dense, bias: true, act: 'tanh', norm: null },
    classifier: modules.classifier,
    classifierBias: true,
    maxRows: context.maxLogitRows,
  });
}

function checkVariant(fields: ConfigFields): void {
  const positions = fields.string('position_embedding_type', 'absolute');
  if (positions !== 'absolute') {
    throw fields.error('position_embedding_type', `is "${positions}"; only absolute positions are served`);
  }
  if (fields.boolean('is_decoder', false)) throw fields.error('is_decoder', 'is true; BERT is served as an encoder');
}

/** Word, position and token type, added and normed. */
class BertEmbeddings implements EncoderEmbeddings {
  private readonly words: VocabEmbedding;
  private readonly positions: VocabEmbedding;
  private readonly tokenTypes: VocabEmbedding;
  private readonly norm: LayerNorm;
  private readonly sum: ResidualSum;
  private readonly row: WorkspaceBuffer;

  constructor(context: ModelContext, prefix: string, eps: number, fields: ConfigFields) {
    const { vocabSize, hiddenSize, maxPositionEmbeddings } = context.config;
    const table = (name: string, rows: number) => new VocabEmbedding(context, `${prefix}.${name}`, rows, hiddenSize);
    this.words = table('word_embeddings', vocabSize);
    this.positions = table('position_embeddings', maxPositionEmbeddings);
    this.tokenTypes = table('token_type_embeddings', fields.positiveInt('type_vocab_size', 2));
    this.norm = new LayerNorm(context, `${prefix}.LayerNorm`, hiddenSize, eps, true);
    this.sum = new ResidualSum(context);
    this.row = context.workspace.persistent('sublayer', hiddenBytes(context));
  }

  forward(inputIds: DevicePtr, out: DevicePtr, context: ForwardContext): void {
    const { numTokens, positions, tokenTypeIds = 0 } = context;
    this.words.forward(inputIds, out, numTokens);
    this.positions.forward(positions, this.row.ptr, numTokens);
    this.sum.add(this.row.ptr, out, numTokens);
    this.tokenTypes.forward(tokenTypeIds, this.row.ptr, numTokens);
    this.sum.add(this.row.ptr, out, numTokens);
    this.norm.forward(out, out, numTokens);
  }
}

/** Attention and feed-forward, each added to the stream and normed behind the addition. */
class BertLayer implements EncoderLayer {
  private readonly attention: EncoderSelfAttention;
  private readonly attentionNorm: LayerNorm;
  private readonly mlp: DenseMLP;
  private readonly outputNorm: LayerNorm;
  private readonly sum: ResidualSum;
  private readonly sublayer: WorkspaceBuffer;

  constructor(context: ModelContext, prefix: string, eps: number) {
    const { hiddenSize, intermediateSize, hiddenAct, numAttentionHeads, headDim } = context.config;
    const { maxNumTokens } = context;
    this.attention = new EncoderSelfAttention(context, {
      hiddenSize,
      numHeads: numAttentionHeads,
      headDim,
      qkv: separateSources({
        [`${prefix}.attention.self.query`]: hiddenSize,
        [`${prefix}.attention.self.key`]: hiddenSize,
        [`${prefix}.attention.self.value`]: hiddenSize,
      }),
      qkvBias: true,
      out: `${prefix}.attention.output.dense`,
      outBias: true,
      rotary: null,
      reach: 0,
      maxNumTokens,
    });
    this.mlp = new DenseMLP(context, {
      hiddenSize,
      intermediateSize,
      hiddenAct,
      up: `${prefix}.intermediate.dense`,
      down: `${prefix}.output.dense`,
      maxNumTokens,
    });
    this.attentionNorm = new LayerNorm(context, `${prefix}.attention.output.LayerNorm`, hiddenSize, eps, true);
    this.outputNorm = new LayerNorm(context, `${prefix}.output.LayerNorm`, hiddenSize, eps, true);
    this.sum = new ResidualSum(context);
    this.sublayer = context.workspace.persistent('sublayer', hiddenBytes(context));
  }

  forward(hidden: DevicePtr, context: ForwardContext): void {
    const { numTokens } = context;
    const sublayer = this.sublayer.ptr;
    this.attention.forward(hidden, sublayer, context);
    this.sum.add(sublayer, hidden, numTokens);
    this.attentionNorm.forward(hidden, hidden, numTokens);
    this.mlp.forward(hidden, sublayer, numTokens);
    this.sum.add(sublayer, hidden, numTokens);
    this.outputNorm.forward(hidden, hidden, numTokens);
  }
}
