import type { FlagSpec } from './flag.ts';
import type { Flag } from './index.ts';

/** How a flag is written: `--max-num-seqs INT`, `--[no-]enable-chunked-prefill`, `--api-key KEY ...`. */
export function flagUsage({ name, spec }: Flag): string {
  if (spec.type === 'boolean') return `--[no-]${name}`;
  const spellings = [`--${name}`, ...(spec.aliases ?? [])].join(', ');
  return `${spellings} ${metavar(spec)}${spec.type === 'list' && spec.separator === undefined ? ' ...' : ''}`;
}

/** The default as an operator would write it; null where the help text says what happens. */
export function flagDefault(spec: FlagSpec): string | null {
  const value = spec.default;
  if (value === null) return null;
  if (Array.isArray(value)) return value.length === 0 ? null : value.join(' ');
  if (typeof value === 'object') return null;
  if (spec.type === 'boolean') return value === true ? 'on' : 'off';
  return spec.type === 'bytes' ? binarySize(value as number) : String(value);
}

/** The words that are allowed, null for any. */
export function flagChoices(spec: FlagSpec): readonly string[] | null {
  return spec.type === 'string' && spec.choices !== undefined ? spec.choices : null;
}

function metavar(spec: FlagSpec): string {
  if (spec.metavar !== undefined) return spec.metavar;
  const choices = flagChoices(spec);
  if (choices !== null && choices.length <= 3) return choices.join('|');
  return METAVARS[spec.type];
}

const METAVARS: Record<FlagSpec['type'], string> = {
  boolean: '',
  int: 'INT',
  float: 'FLOAT',
  tokens: 'TOKENS',
  bytes: 'SIZE',
  string: 'TEXT',
  list: 'WORD',
  json: 'JSON',
};

/** 33554432 → "32MiB"; a size that is no multiple of a unit stays a number. */
function binarySize(bytes: number): string {
  const units = ['TiB', 'GiB', 'MiB', 'KiB'];
  const index = units.findIndex((_, i) => bytes > 0 && bytes % 2 ** (40 - 10 * i) === 0);
  return index < 0 ? String(bytes) : `${bytes / 2 ** (40 - 10 * index)}${units[index]}`;
}
