import type { DevicePtr } from '../device/device.ts';
import type { KvCacheSpec } from '../kv-cache/kv-cache-spec.ts';
import type { Model } from '../models/model.ts';
import type { StepShape } from './step-inputs.ts';

/** A draft model's attention layers stand beside the target's in one KV cache; both may call theirs "model.layers.0.self_attn". */
const PREFIX = 'draft.';

export function draftKvCacheSpecs(draft: Model): [layer: string, KvCacheSpec][] {
  return Array.from(draft.kvCacheSpecs(), ([name, spec]) => [PREFIX + name, spec]);
}

/** Gives the draft's layers their caches, out of those of all layers. */
export function bindDraftKvCache(draft: Model, caches: ReadonlyMap<string, DevicePtr>): void {
  const own = [...caches].filter(([name]) => name.startsWith(PREFIX));
  draft.bindKvCache(new Map(own.map(([name, ptr]) => [name.slice(PREFIX.length), ptr])));
}

/** Most tokens of the draft's passes: those of a step of the target, and the ones that the step gave its requests. */
export function maxDraftTokens({ maxNumTokens, maxNumSeqs }: Pick<StepShape, 'maxNumTokens' | 'maxNumSeqs'>): number {
  return maxNumTokens + maxNumSeqs;
}

/** The shape of the target's steps, for passes of the draft: its layers alone, and no adapters. */
export function draftShape(shape: StepShape): StepShape {
  const layerNames = shape.layerNames.map((names) =>
    names.filter((name) => name.startsWith(PREFIX)).map((name) => name.slice(PREFIX.length)),
  );
  const limits = { maxNumTokens: maxDraftTokens(shape), maxLogitRows: shape.maxNumSeqs };
  return { ...shape, ...limits, layerNames, usesTokenTypes: false, usesAdapters: false };
}
