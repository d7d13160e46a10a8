import { UsageError } from './config-error.ts';
import { type FlagValues, flagByName } from './flags/index.ts';
import { unknownFlag } from './flags/unknown-flag.ts';
import { isJsonObject, parseTyped } from './parse-value.ts';

/**
 * The flags of a `--config` file: YAML (so JSON too), one mapping from flag names, with dashes or underscores, to values.
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
    const name = key.replace(/^--/, '');
    const flag = flagByName(name);
    if (flag === undefined) throw await unknownFlag(name, `in ${path}`);
    given[flag.field] = parseTyped(flag.spec, value, `${key} in ${path}`);
  }
  return given as Partial<FlagValues>;
}
