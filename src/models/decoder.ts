import type { Device, DevicePtr } from '../device/device.ts';
import { dtypeBytes } from '../device/dtype.ts';
import type { KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import type { Attention } from '../layers/attention.ts';
import type { ForwardContext } from '../layers/forward-context.ts';
import { RMSNorm } from '../layers/rms-norm.ts';
import type { RotaryEmbeddings } from '../layers/rotary-embedding.ts';
import { LMHead, VocabEmbedding } from '../layers/vocab-embedding.ts';
import type { WorkspaceBuffer } from '../layers/workspace.ts';
import type { CausalLM } from './model.ts';
import type { ModelContext } from './model-context.ts';

/**
 * One decoder layer. Between layers the hidden state is `residual + hidden`: a layer's last addition is left to the norm that follows.
 */
export interface DecoderLayer {
  readonly attention: Attention;
  /**
   * Changes act hidden and residual [numTokens, hiddenSize] in place.
   * @param isFirst hidden holds nothing yet: the layer starts from residual alone
   */
  forward(hidden: DevicePtr, residual: DevicePtr, context: ForwardContext, isFirst: boolean): void;
}

export interface DecoderOptions {
  /** Multiplies the token embeddings. */
  embeddingScale?: number;
  /** Of the final norm; the config's when absent. */
  rmsNormEps?: number;
  /** Added to the final norm's weights. */
  normOffset?: number;
  /** Multiplies the logits. */
  logitScale?: number;
  /** Logits become cap * tanh(logits / cap); off when absent. */
  logitSoftCap?: number;
}

/** Token embedding, a stack of layers, a final norm and the LM head: what all decoder-only models share. */
export class DecoderForCausalLM implements CausalLM {
  readonly vocabSize: number;
  private readonly device: Device;
  private readonly logitSoftCap: number;
  private readonly rotaryEmbeddings: RotaryEmbeddings;
  private readonly embedTokens: VocabEmbedding;
  private readonly layers: readonly DecoderLayer[];
  private readonly norm: RMSNorm;
  /** null: not loaded, see ModelContext.lmHead. */
  private readonly lmHead: LMHead | null;
  private readonly hidden: WorkspaceBuffer;
  private readonly residual: WorkspaceBuffer;

  /** @param createLayer builds layer `index`, whose weights' names start with `prefix` ("model.layers.0") */
  constructor(
    context: ModelContext,
    createLayer: (context: ModelContext, prefix: string, index: number) => DecoderLayer,
    options: DecoderOptions = {},
  ) {
    const { config, workspace, maxNumTokens } = context;
    const { vocabSize, hiddenSize } = config;
    this.device = context.device;
    this.vocabSize = vocabSize;
    this.logitSoftCap = options.logitSoftCap ?? 0;
    this.rotaryEmbeddings = context.rotaryEmbeddings;
    this.embedTokens = new VocabEmbedding(context, EMBEDDING, vocabSize, hiddenSize, options.embeddingScale);
    this.layers = Array.from({ length: config.numHiddenLayers }, (_, index) =>
      createLayer(context, `model.layers.${index}`, index),
    );
    // Beside the LM head the final norm has no consumer, so a factor on the logits is a factor on its weights.
    this.norm = new RMSNorm(context, 'model.norm', hiddenSize, options.rmsNormEps ?? config.rmsNormEps, {
      offset: options.normOffset,
      scale: context.lmHead ? options.logitScale : undefined,
    });
    this.lmHead = context.lmHead ? createLmHead(context, this.embedTokens) : null;
    const bytes = maxNumTokens * hiddenSize * dtypeBytes(context.device.activationDtype);
    this.hidden = workspace.persistent('hidden', bytes);
    this.residual = workspace.persistent('residual', bytes);
  }

  kvCacheSpecs(): Map<string, KvCacheSpec> {
    return new Map(this.layers.map(({ attention }) => [attention.layerName, attention.kvCacheSpec()]));
  }

  bindKvCache(caches: Map<string, DevicePtr>): void {
    for (const { attention } of this.layers) {
      const cache = caches.get(attention.layerName);
      if (cache === undefined) throw new Error(`Layer ${attention.layerName} got no KV cache.`);
      attention.bindKvCache(cache);
    }
  }

  positionOffset(numPromptTokens: number): number {
    return this.rotaryEmbeddings.positionOffset(numPromptTokens);
  }

  forward(inputIds: DevicePtr, context: ForwardContext): DevicePtr {
    const hidden = this.hidden.ptr;
    const residual = this.residual.ptr;
    this.embedTokens.forward(inputIds, residual, context.numTokens);
    for (let index = 0; index < this.layers.length; index++) {
      this.layers[index]!.forward(hidden, residual, context, index === 0);
    }
    this.norm.addAndForward(hidden, residual, context.numTokens);
    return hidden;
  }

  computeLogits(hidden: DevicePtr, rows: number): DevicePtr {
    if (this.lmHead === null) throw new Error('The model was loaded without its LM head.');
    const logits = this.lmHead.forward(hidden, rows);
    if (this.logitSoftCap > 0) this.device.ops.soft_cap(logits, rows * this.vocabSize, this.logitSoftCap);
    return logits;
  }
}

const EMBEDDING = 'model.embed_tokens';

function createLmHead(context: ModelContext, embedTokens: VocabEmbedding): LMHead {
  const { vocabSize, hiddenSize, tieWordEmbeddings } = context.config;
  const [prefix, tied] = tieWordEmbeddings ? [EMBEDDING, embedTokens.table] : ['lm_head', null];
  return new LMHead(context, prefix, vocabSize, hiddenSize, context.maxLogitRows, tied);
}
