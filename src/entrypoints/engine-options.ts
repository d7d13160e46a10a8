import { EngineArgs } from '../config/engine-args.ts';
import { readEnvironment } from '../config/environment.ts';
import { FLAGS, type FlagValues } from '../config/flags/index.ts';
import { unknownFlag } from '../config/flags/unknown-flag.ts';
import { parseTyped } from '../config/parse-value.ts';

/** Options of an engine in a program: the flags of `bao serve` (docs/flags.md) in camelCase, `--max-model-len` as `maxModelLen`. Default model: demo. */
export type EngineOptions = Partial<FlagValues>;

/**
 * Options over BAO_* variables over defaults, checked like a command line.
 *
 * @throws UsageError for an option that does not exist and a value that it does not take
 */
export async function engineArgsOf(options: EngineOptions): Promise<EngineArgs> {
  const given: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const flag = FLAGS.find((each) => each.field === field);
    if (flag === undefined) throw await unknownFlag(dashed(field));
    given[field] = parseTyped(flag.spec, value, field);
  }
  return new EngineArgs({ ...readEnvironment(process.env), ...given });
}

/** maxModelLen → max-model-len */
function dashed(field: string): string {
  return field.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
