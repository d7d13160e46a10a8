import type { BaoConfig } from './bao-config.ts';
import { FLAGS } from './flags/index.ts';

const MASK = '***';

/** The configuration for people's eyes: a copy in which secrets that are set are masked. */
export function maskedConfig(config: BaoConfig): Record<string, unknown> {
  const shown = structuredClone(config) as unknown as Record<string, Record<string, unknown>>;
  for (const { field, group, spec } of FLAGS) {
    const values = shown[group.key];
    if (!spec.secret || values === undefined || !(field in values)) continue;
    const value = values[field];
    if (Array.isArray(value)) values[field] = value.map(() => MASK);
    else if (value !== null) values[field] = MASK;
  }
  return shown;
}
