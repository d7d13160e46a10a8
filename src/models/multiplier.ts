import { ConfigFields } from './config-fields.ts';
import type { HfConfig } from './hf-config.ts';

/** A positive factor among the family's own fields of config.json, `fallback` when absent. Throws HfConfigError. */
export function multiplier(config: HfConfig, name: string, fallback = 1): number {
  return new ConfigFields(config.raw, 'config.json').positiveNumber(name, fallback);
}

/** The same for a field whose null means off: 0 then, `fallback` when absent. */
export function multiplierOrZero(config: HfConfig, name: string, fallback: number): number {
  return config.raw[name] === null ? 0 : multiplier(config, name, fallback);
}
