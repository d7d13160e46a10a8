/** How an adapter's names of modules and the model's become each other. */
export interface ModuleNames {
  toModel(adapterName: string): string;
  toAdapter(modelName: string): string;
}

const SAME: ModuleNames = { toModel: (name) => name, toAdapter: (name) => name };

/**
 * PEFT counts from what it wrapped, which is the whole model ("model.layers.0", "bert.encoder.layer.0") or its base alone ("layers.0",
 * "encoder.layer.0"), and a checkpoint's names begin at either, too.
 *
 * @param adapterNames modules that the adapter changes
 */
export function moduleNames(adapterNames: readonly string[], modules: ReadonlyMap<string, unknown>): ModuleNames {
  for (const name of adapterNames) {
    if (modules.has(name)) return SAME;
    const base = baseOf(name);
    if (base !== null && modules.has(name.slice(base.length))) return withoutBase(base);
    for (const module of modules.keys()) {
      const ofModel = baseOf(module);
      if (ofModel !== null && module.slice(ofModel.length) === name) {
        const { toModel, toAdapter } = withoutBase(ofModel);
        return { toModel: toAdapter, toAdapter: toModel };
      }
    }
  }
  return SAME;
}

/** For an adapter whose names have a base that the model's have not. */
function withoutBase(base: string): ModuleNames {
  return {
    toModel: (name) => (name.startsWith(base) ? name.slice(base.length) : name),
    toAdapter: (name) => base + name,
  };
}

/** "model." of "model.layers.0.mlp". */
function baseOf(name: string): string | null {
  const end = name.indexOf('.');
  return end === -1 ? null : name.slice(0, end + 1);
}
