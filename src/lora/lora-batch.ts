import type { DevicePtr } from '../device/device.ts';

/** An adapter's place in the worker. */
export interface LoRASlot {
  slot: number;
  rank: number;
}

/** The rows of a step that have adapters, grouped by adapter. All arrays are i32 on the device. */
export interface LoRABatch {
  /** [numRows]: rows of the flat batch. */
  rows: DevicePtr;
  /** [numGroups + 1]: each group's first place in `rows`. */
  groupOffsets: DevicePtr;
  /** [numGroups]: the groups' adapters. */
  groupSlots: DevicePtr;
  numRows: number;
  numGroups: number;
  /** The largest rank of the step's adapters. */
  maxRank: number;
}

/** Tokens of one request in the flat batch. */
export interface LoRASpan {
  lora: LoRASlot | null;
  firstToken: number;
  numTokens: number;
}

/** The shape of a step's groups, before they have a place on the device. */
export interface LoRAGroups {
  numRows: number;
  maxRank: number;
  /** By slot, in order of first appearance. */
  spansBySlot: Map<number, LoRASpan[]>;
}

/** Words that {@link writeLoRAGroups} writes. */
export function loraGroupWords({ numRows, spansBySlot }: LoRAGroups): number {
  return numRows + 2 * spansBySlot.size + 1;
}

/** null where no row has an adapter. */
export function groupByAdapter(spans: readonly LoRASpan[]): LoRAGroups | null {
  const spansBySlot = new Map<number, LoRASpan[]>();
  let numRows = 0;
  let maxRank = 0;
  for (const span of spans) {
    if (span.lora === null) continue;
    const { slot, rank } = span.lora;
    const group = spansBySlot.get(slot);
    if (group === undefined) spansBySlot.set(slot, [span]);
    else group.push(span);
    numRows += span.numTokens;
    maxRank = Math.max(maxRank, rank);
  }
  return numRows === 0 ? null : { numRows, maxRank, spansBySlot };
}

/** Writes the arrays one after another from `at` on; `base` is the device's address of `words`. */
export function writeLoRAGroups(
  { numRows, maxRank, spansBySlot }: LoRAGroups,
  words: Int32Array,
  at: number,
  base: DevicePtr,
): LoRABatch {
  const numGroups = spansBySlot.size;
  const offsetsAt = at + numRows;
  const slotsAt = offsetsAt + numGroups + 1;
  let row = 0;
  let group = 0;
  for (const [slot, spans] of spansBySlot) {
    words[offsetsAt + group] = row;
    words[slotsAt + group++] = slot;
    for (const { firstToken, numTokens } of spans) {
      for (let i = 0; i < numTokens; i++) words[at + row++] = firstToken + i;
    }
  }
  words[offsetsAt + numGroups] = row;
  const address = (index: number) => base + index * Int32Array.BYTES_PER_ELEMENT;
  return {
    rows: address(at),
    groupOffsets: address(offsetsAt),
    groupSlots: address(slotsAt),
    numRows,
    numGroups,
    maxRank,
  };
}
