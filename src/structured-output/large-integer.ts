import { subschemas } from './schema-fault.ts';

/**
 * Where a schema asks for a certain integer beyond 2^53, as a JSON pointer; null where it does not. Such integers can't be told apart in the 64-bit
 * floats that JSON.parse and llguidance read them as, so that another one would be written. Bounds are left alone: they are there to the nearest float.
 */
export function largeInteger(root: unknown): string | null {
  // Most schemas have none anywhere, which is soon seen.
  if (!isLarge(root)) return null;
  const open = [{ schema: root, pointer: '' }];
  for (let part = open.pop(); part !== undefined; part = open.pop()) {
    const { schema, pointer } = part;
    if (typeof schema !== 'object' || schema === null) continue;
    for (const keyword of ['const', 'enum'] as const) {
      if (isLarge((schema as Record<string, unknown>)[keyword])) return `${pointer}/${keyword}`;
    }
    open.push(...subschemas(part));
  }
  return null;
}

/** An integer of that size, or a list or object with one. */
function isLarge(value: unknown): boolean {
  if (typeof value === 'number') return Number.isInteger(value) && !Number.isSafeInteger(value);
  return typeof value === 'object' && value !== null && Object.values(value).some(isLarge);
}
