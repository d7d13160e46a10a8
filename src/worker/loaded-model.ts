import { type DenseModuleWeights, type LoadModelOptions, loadModel, loadPoolingModel } from '../models/load-model.ts';
import type { CausalLM, PoolingModel } from '../models/model.ts';
import type { PoolingConfig } from '../pooling/pooling-config.ts';

export type LoadedModel =
  | { kind: 'causal'; model: CausalLM }
  | { kind: 'pooling'; model: PoolingModel; config: PoolingConfig };

/** See loadModel and loadPoolingModel. */
export async function loadFor(
  pooling: PoolingConfig | null,
  options: LoadModelOptions,
  dense: readonly DenseModuleWeights[],
): Promise<LoadedModel> {
  if (pooling === null) return { kind: 'causal', model: await loadModel(options) };
  return { kind: 'pooling', model: await loadPoolingModel(options, pooling, dense), config: pooling };
}
