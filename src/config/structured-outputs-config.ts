import type { StructuredOutputsConfig } from './bao-config.ts';
import { UsageError } from './config-error.ts';

const FLAG = '--structured-outputs-config';
const BACKENDS = ['auto', 'guidance', 'xgrammar'] as const;

/** Reads `--structured-outputs-config`. Throws UsageError for a key or value that is not known. */
export function readStructuredOutputsConfig(given: Readonly<Record<string, unknown>>): StructuredOutputsConfig {
  const {
    backend = 'auto',
    disable_any_whitespace: space = false,
    disable_additional_properties: extra = false,
  } = given;
  const known = ['backend', 'disable_any_whitespace', 'disable_additional_properties'];
  const unknown = Object.keys(given).find((key) => !known.includes(key));
  if (unknown !== undefined) throw new UsageError(`${FLAG} has no ${unknown}; it takes ${known.join(', ')}.`);
  const chosen = BACKENDS.find((each) => each === backend);
  if (chosen === undefined) {
    throw new UsageError(`${FLAG}.backend must be one of ${BACKENDS.join(', ')}, not ${JSON.stringify(backend)}.`);
  }
  return {
    backend: chosen,
    disableAnyWhitespace: toBoolean('disable_any_whitespace', space),
    disableAdditionalProperties: toBoolean('disable_additional_properties', extra),
  };
}

function toBoolean(key: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  throw new UsageError(`${FLAG}.${key} must be true or false, not ${JSON.stringify(value)}.`);
}
