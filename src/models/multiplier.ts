import { ConfigFields } from './config-fields.ts';
import type { HfConfig } from './hf-config.ts';

/** A positive factor among the family's own fields of config.json, `fallback` when absent. Throws HfConfigError. */
export function multiplier(config: HfConfig, name: string, fallback = 1): number {
  return new ConfigFields(config.raw, 'config.json').positiveNumber(name, fallback);
}
