import { FLAGS, type Flag, type FlagValues } from './flags/index.ts';
import { parseText } from './parse-value.ts';

/** The engine's flags that BAO_* variables set. An empty variable counts as absent. Throws UsageError that names the variable. */
export function readEnvironment(environment: Readonly<Record<string, string | undefined>>): Partial<FlagValues> {
  return readVariables(FLAGS, environment) as Partial<FlagValues>;
}

/** The same for the flags of a command, by field. */
export function readVariables(
  flags: readonly Flag[],
  environment: Readonly<Record<string, string | undefined>>,
): Record<string, unknown> {
  const given: Record<string, unknown> = {};
  for (const { field, spec } of flags) {
    const text = spec.env === undefined ? undefined : environment[spec.env];
    if (spec.env === undefined || text === undefined || text === '') continue;
    given[field] =
      'envUnit' in spec && spec.envUnit !== undefined && Number.isFinite(Number(text))
        ? parseText(spec, String(Math.round(Number(text) * spec.envUnit)), spec.env)
        : parseText(spec, text, spec.env);
  }
  return given;
}
