import { ENGINE_VARIABLES } from './engine-variables.ts';
import { FLAGS, type Flag, type FlagValues } from './flags/index.ts';
import { closest } from './flags/unknown-flag.ts';
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

/** Variables that are set as if they were heard, one sentence each: vLLM's where Bao has its own, and names that are nearly Bao's. */
export async function environmentWarnings(
  environment: Readonly<Record<string, string | undefined>>,
): Promise<string[]> {
  const known = [...FLAGS.flatMap(({ spec }) => spec.env ?? []), ...Object.keys(ENGINE_VARIABLES)];
  const isSet = (name: string) => (environment[name] ?? '') !== '';
  const warnings = known
    .map((name) => ({ name, foreign: name.replace('BAO_', 'VLLM_') }))
    .filter(({ name, foreign }) => isSet(foreign) && !isSet(name))
    .map(({ name, foreign }) => `${foreign} is set, which Bao does not read: its own variable is ${name}.`);
  const unknown = Object.keys(environment).filter((name) => /^BAO_/.test(name) && isSet(name) && !known.includes(name));
  for (const name of unknown) {
    const [near] = await closest(name, known);
    if (near !== undefined) warnings.push(`${name} is set, which Bao does not read: did you mean ${near}?`);
  }
  return warnings;
}
