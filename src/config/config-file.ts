import { UsageError } from './config-error.ts';
import { type FlagValues, flagByName } from './flags/index.ts';
import { unknownFlag } from './flags/unknown-flag.ts';
import { expected, isJsonObject, type JsonObject, mergeObjects, parseTyped, withMember } from './parse-value.ts';

/**
 * The flags of a `--config` file: YAML (so JSON too), one mapping from flag names, with dashes or underscores, to values. As on the command line a
 * boolean may be negated (`no-async-scheduling: true`) and a member of a JSON flag named alone (`hf-overrides.rope_theta: 5000`).
 *
 * @throws UsageError that names the file and the key
 */
export async function readConfigFile(path: string): Promise<Partial<FlagValues>> {
  const text = await Bun.file(path)
    .text()
    .catch((error: Error) => {
      throw new UsageError(`--config: ${path} can't be read: ${error.message}.`);
    });
  const { parse } = await import('yaml');
  let document: unknown;
  try {
    document = parse(text) ?? {};
  } catch (error) {
    throw new UsageError(`--config: ${path} is no YAML: ${(error as Error).message.split('\n')[0]}`);
  }
  if (!isJsonObject(document)) throw new UsageError(`--config: ${path} must map flag names to values.`);

  const given: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(document)) {
    await readEntry(given, key.replace(/^--/, ''), value, path);
  }
  return given as Partial<FlagValues>;
}

async function readEntry(given: Record<string, unknown>, key: string, value: unknown, path: string): Promise<void> {
  const origin = `${key} in ${path}`;
  const [name, ...members] = key.split('.') as [string, ...string[]];
  if (name === 'config') throw new UsageError(`${origin}: a file can't name another one.`);
  const flag = flagByName(name);
  if (flag === undefined) {
    const positive = /^no[-_]/.test(key) ? flagByName(key.slice(3)) : undefined;
    if (positive?.spec.type !== 'boolean') throw await unknownFlag(name, `in ${path}`);
    given[positive.field] = !parseTyped(positive.spec, value, origin);
  } else if (members.length === 0) {
    const parsed = parseTyped(flag.spec, value, origin);
    const before = given[flag.field];
    given[flag.field] = isJsonObject(before) && isJsonObject(parsed) ? mergeObjects(before, parsed) : parsed;
  } else if (flag.spec.type === 'json') {
    given[flag.field] = withMember((given[flag.field] as JsonObject | undefined) ?? {}, members, value, origin);
  } else {
    throw new UsageError(`${origin}: ${name} has no members; it takes ${expected(flag.spec)}.`);
  }
}
