import { createHash } from 'node:crypto';
import type { BaoConfig } from '../../config/bao-config.ts';

/** `system_fingerprint` as `--fingerprint-mode` wants it: the same for two servers that give the same answers. null: none. */
export function systemFingerprint(config: BaoConfig, version: string): string | null {
  const { fingerprintMode, fingerprintValue } = config.frontend;
  if (fingerprintMode === 'none') return null;
  if (fingerprintMode === 'custom') return fingerprintValue;
  const parts = [`bao-${version}`];
  if (fingerprintMode === 'full' && config.parallel.dataParallelSize > 1) {
    parts.push(`dp${config.parallel.dataParallelSize}`);
  }
  parts.push(hashOf(config));
  return parts.join('-');
}

/** Of what decides the numbers: model, types, cache, parallel layout and device; neither names, keys nor ports. */
function hashOf({ model, cache, parallel, device }: BaoConfig): string {
  const { hf, dtype, maxModelLen, revision, logprobsMode } = model;
  const deciding = { hf: hf.raw, dtype, maxModelLen, revision, logprobsMode, cache, parallel, device };
  return createHash('sha256').update(JSON.stringify(deciding)).digest('hex').slice(0, 8);
}
