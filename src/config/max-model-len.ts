import type { RopeParameters } from '../layers/rope-parameters.ts';
import type { HfConfig } from '../models/hf-config.ts';
import { ConfigError } from './config-error.ts';

/** Scalings whose max_position_embeddings is the scaled length already. */
const SCALED_ALREADY: ReadonlySet<RopeParameters['ropeType']> = new Set(['default', 'llama3', 'longrope']);

/** The longest sequence that config.json stands for, by vLLM's rule: the trained length times the rope scaling's factor. */
function deriveMaxModelLen({ maxPositionEmbeddings, firstPosition, rope }: HfConfig): number {
  if (SCALED_ALREADY.has(rope.ropeType)) return maxPositionEmbeddings - firstPosition;
  const trained =
    rope.ropeType === 'yarn' ? (rope.originalMaxPositionEmbeddings ?? maxPositionEmbeddings) : maxPositionEmbeddings;
  return Math.floor(trained * rope.factor);
}

/**
 * @param trained what the model's files say besides config.json; null: nothing
 * @param wanted `--max-model-len`: null is what the model has, -1 (auto) too, to be lowered later to what the KV cache holds
 * @throws ConfigError for 0 and for more than the model has
 */
export function resolveMaxModelLen(wanted: number | null, hf: HfConfig, trained: number | null = null): number {
  const derived = deriveMaxModelLen(hf);
  if (wanted === null || wanted === -1) return Math.min(derived, trained ?? derived);
  if (wanted === 0) throw new ConfigError('--max-model-len must be at least 1, or auto.');
  if (wanted > derived) {
    throw new ConfigError(
      `--max-model-len ${wanted} is more than the ${derived} tokens that the model's config.json allows (max_position_embeddings ${hf.maxPositionEmbeddings}, rope ${hf.rope.ropeType}).`,
    );
  }
  return wanted;
}
