import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { randomInt, seededRandom } from '../random.ts';

/** A JSON schema and texts that are values of it or not, as a file of MaskBench has them: `{"schema", "tests": [{"valid", "data"}]}`. */
export interface SchemaWithInstances {
  name: string;
  schema: unknown;
  instances: { valid: boolean; text: string }[];
}

/** Names of a folder's schema files: all of them, or as many as are wanted, drawn at random. */
export function instanceFiles(folder: string, count: number | null, seed: number): string[] {
  const files = readdirSync(folder)
    .filter((file) => file.endsWith('.json'))
    .sort();
  if (count === null) return files;
  const random = seededRandom(seed);
  const drawn: string[] = [];
  while (drawn.length < count && files.length > 0)
    drawn.push(...files.splice(randomInt(random, 0, files.length - 1), 1));
  return drawn;
}

/** Instances are laid out by `indent` spaces a level, on one line with 0. Throws Error for a file of another form. */
export async function readInstances(folder: string, file: string, indent = 0): Promise<SchemaWithInstances> {
  const text = await Bun.file(join(folder, file)).text();
  const { schema } = JSON.parse(text) as { schema: unknown };
  const { tests } = JSON.parse(text, exactNumber) as { tests: { valid: boolean; data: unknown }[] };
  if (schema === undefined || !Array.isArray(tests)) throw new Error(`${file} has no "schema" or no "tests"`);
  const instances = tests.map(({ valid, data }) => ({ valid, text: JSON.stringify(data, null, indent) }));
  return { name: file, schema, instances };
}

/** Numbers stay as they were written: 1.0 is not 1 to a grammar, and some have more digits than a double. */
function exactNumber(_key: string, value: unknown, context?: { source?: string }): unknown {
  return typeof value === 'number' && context?.source !== undefined ? rawJson(context.source) : value;
}

/** JSON.rawJSON, which TypeScript's library does not know yet. */
const rawJson = (JSON as unknown as { rawJSON: (text: string) => unknown }).rawJSON;
