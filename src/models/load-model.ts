import type { Device } from '../device/device.ts';
import type { DType, FloatDType } from '../device/dtype.ts';
import { DenseHead, type DenseLayer } from '../layers/dense-head.ts';
import type { TensorParallel } from '../layers/layer-context.ts';
import type { LinearAdapters } from '../layers/linear-adapters.ts';
import { type LinearMethod, unquantizedLinearMethod } from '../layers/linear-method.ts';
import type { ModelWork } from '../layers/model-work.ts';
import { RotaryEmbeddings } from '../layers/rotary-embedding.ts';
import { Workspace } from '../layers/workspace.ts';
import type { Fp8View, TensorView, WeightSource } from '../loader/weight-source.ts';
import { logger } from '../logging/logger.ts';
import { quantizationMethod } from '../quantization/registry.ts';
import { checkpointQuantization } from './checkpoint-quantization.ts';
import { isJsonObject } from './config-fields.ts';
import type { HfConfig } from './hf-config.ts';
import type { CausalLM, Model, PoolingModel } from './model.ts';
import type { ModelContext, PooledAs } from './model-context.ts';
import { modelFactory, poolingModelFactory } from './registry.ts';

const log = logger('models');

export interface LoadModelOptions {
  device: Device;
  config: HfConfig;
  weights: WeightSource;
  /** Type that weights are kept in. */
  dtype: FloatDType;
  kvCacheDtype: DType;
  /** Tokens in a KV cache block. */
  blockSize: number;
  /** Most tokens in a step. */
  maxNumTokens: number;
  /** Most rows of logits at once. */
  maxLogitRows: number;
  /** Longest sequence in tokens. */
  maxModelLen: number;
  tensorParallel: TensorParallel;
  /** What linear layers' weights become at load (`--quantization`); they stay in `dtype` when absent or null. */
  quantization?: string | null;
  /** Where linear layers register for adapters; absent or null: there will be none. */
  adapters?: LinearAdapters | null;
  /** Is told what computing the model takes; absent: nobody asks. */
  work?: ModelWork;
}

/**
 * Builds the model that config.json names and reads its weights to the device. Warns about tensors that no layer read.
 * Throws an Error that names an unknown architecture (and the known ones), or the tensor that is missing or misshapen.
 */
export async function loadModel(options: LoadModelOptions): Promise<CausalLM> {
  const createModel = await modelFactory(options.config.architectures);
  return build(options, createModel);
}

/** What embeddings go through after pooling, with its weights. */
export type DenseModuleWeights = DenseLayer & { weights: WeightSource };

/** The same for a model whose hidden states are pooled. */
export async function loadPoolingModel(
  options: LoadModelOptions,
  pooledAs: PooledAs,
  dense: readonly DenseModuleWeights[] = [],
): Promise<PoolingModel> {
  const createModel = await poolingModelFactory(options.config.architectures);
  return build(options, (context) => {
    const model = createModel(context, pooledAs);
    if (dense.length > 0) model.head = new DenseHead(context, dense, context.maxLogitRows);
    return model;
  });
}

function build<M extends Model>(options: LoadModelOptions, createModel: (context: ModelContext) => M): M {
  const { device, config, maxModelLen } = options;
  const linearMethod = chooseLinearMethod(config, options.quantization ?? null, options.weights.getFp8 !== undefined);
  if (options.tensorParallel.size !== 1) {
    throw new Error(
      `Tensor parallel size is ${options.tensorParallel.size}; no device here can add up the ranks' outputs, so it must be 1.`,
    );
  }
  const weights = new TrackedWeights(options.weights);
  const workspace = new Workspace(device);
  const { headDim, maxPositionEmbeddings } = config;
  const rotaryEmbeddings = new RotaryEmbeddings(device, config.layerRopes, {
    headDim,
    maxPositionEmbeddings,
    maxModelLen,
  });
  const model = createModel({ ...options, linearMethod, weights, workspace, rotaryEmbeddings, lmHead: true });
  workspace.allocate();
  warnOfUnread(weights.unread());
  return model;
}

/** What `--quantization` names, or the checkpoint's own. */
function chooseLinearMethod(config: HfConfig, name: string | null, hasFp8: boolean): LinearMethod {
  const quantization = config.raw.quantization_config;
  if (!isJsonObject(quantization)) return name === null ? unquantizedLinearMethod : quantizationMethod(name);
  const method = checkpointQuantization(quantization, name);
  // Dummy weights stand for those of the checkpoint, and are none that are quantized already.
  return hasFp8 ? method : quantizationMethod(method.name);
}

/** Remembers which tensors were read. */
class TrackedWeights implements WeightSource {
  private readonly read = new Set<string>();

  constructor(private readonly source: WeightSource) {}

  get totalBytes(): number {
    return this.source.totalBytes;
  }

  has(name: string): boolean {
    return this.source.has(name);
  }

  get(name: string, shape?: readonly number[]): TensorView {
    this.read.add(name);
    return this.source.get(name, shape);
  }

  getFp8(name: string, shape: readonly number[]): Fp8View | null {
    const view = this.source.getFp8?.(name, shape) ?? null;
    if (view !== null) this.read.add(name);
    return view;
  }

  names(): string[] {
    return this.source.names();
  }

  close(): void {
    this.source.close();
  }

  unread(): string[] {
    return this.source.names().filter((name) => !this.read.has(name));
  }
}

/** Tensors that checkpoints carry and no forward pass needs: tables that are computed, the copy of a tied embedding, heads of encoders' training, scales of activations that stay as they are. */
const NEEDLESS =
  /(^|\.)(rotary_emb\.inv_freq|lm_head\.[\w.]+|masked_bias|position_ids|input_scale|pooler\.dense\.(weight|bias))$|^cls\./;
const MAX_NAMED = 5;

function warnOfUnread(names: readonly string[]): void {
  const unread = names.filter((name) => !NEEDLESS.test(name));
  if (unread.length === 0) return;
  const more = unread.length > MAX_NAMED ? ` and ${unread.length - MAX_NAMED} more` : '';
  log.warn(
    `The model has no use for ${unread.length} of the checkpoint's tensors: ${unread.slice(0, MAX_NAMED).join(', ')}${more}`,
  );
}
