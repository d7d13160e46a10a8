import { ConfigError } from './config-error.ts';
import { isJsonObject, type JsonObject } from './parse-value.ts';

/** The JSON object in a file; null where there is no such file. Throws ConfigError that names it. */
export async function readJsonFile(path: string): Promise<JsonObject | null> {
  const file = Bun.file(path);
  if (!(await file.exists())) return null;
  let value: unknown;
  try {
    value = JSON.parse(await file.text());
  } catch (error) {
    throw new ConfigError(`${path} can't be read as JSON: ${(error as Error).message}.`);
  }
  if (!isJsonObject(value)) throw new ConfigError(`${path} must hold a JSON object.`);
  return value;
}
