import { FLAGS, type FlagValues } from './flags/index.ts';

const MASK = '***';

/** The flags that are not at their default, as lines `  --flag value` for the log at start; secrets masked. '' when there are none. */
export function describeNonDefaultArgs(values: Readonly<FlagValues>): string {
  const lines: string[] = [];
  for (const { name, field, spec } of FLAGS) {
    const value = values[field];
    if (Bun.deepEquals(value, spec.default)) continue;
    lines.push(`  --${name} ${spec.secret ? MASK : shown(value)}`);
  }
  return lines.join('\n');
}

function shown(value: unknown): string {
  if (Array.isArray(value)) return value.join(' ');
  return typeof value === 'string' ? value : JSON.stringify(value);
}
