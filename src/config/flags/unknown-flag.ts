import { UsageError } from '../config-error.ts';
import { type FlagSet, SERVE_FLAGS } from './index.ts';
import { unsupportedName, unsupportedReason } from './unsupported.ts';

/** Edits after which two names still are alike: two letters swapped in a short one, or this share of a longer one. */
const MAX_EDITS = 2;
const MAX_EDIT_SHARE = 0.3;
const MAX_SUGGESTIONS = 3;

/**
 * The error for a flag that the table lacks: why Bao has no such flag if vLLM has it, else the flags whose names are alike.
 *
 * @param name without dashes in front
 * @param where "in server.yaml", or nothing for the command line
 * @param flags those that are known there
 */
export async function unknownFlag(name: string, where = '', flags: FlagSet = SERVE_FLAGS): Promise<UsageError> {
  const flag = unsupportedName(name.replaceAll('_', '-'));
  const place = where === '' ? '' : ` (${where})`;
  const reason = unsupportedReason(flag);
  if (reason !== null) return new UsageError(`vLLM's --${flag} is not supported by Bao${place}: ${reason}.`);
  const alike = await closest(flag, ['help', 'config', ...flags.names]);
  const hint = alike.length === 0 ? '--help lists all' : `did you mean ${alike.map((n) => `--${n}`).join(' or ')}?`;
  return new UsageError(`Unknown option --${name}${place}: ${hint}${hint.endsWith('?') ? '' : '.'}`);
}

/** The best-matching names, nearest first; none when nothing is near. */
export async function closest(name: string, names: readonly string[]): Promise<string[]> {
  const { distance } = await import('fastest-levenshtein');
  return names
    .map((candidate) => ({ candidate, edits: distance(name, candidate) }))
    .filter(({ candidate, edits }) => edits <= Math.max(MAX_EDITS, MAX_EDIT_SHARE * candidate.length))
    .sort((a, b) => a.edits - b.edits)
    .slice(0, MAX_SUGGESTIONS)
    .map(({ candidate }) => candidate);
}
