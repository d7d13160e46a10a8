import type { Device, DevicePtr } from '../device/device.ts';
import { type RopeFrequencies, ropeFrequencies, ropeSwitchLength, rotaryDim } from './rope-frequencies.ts';
import type { RopeParameters } from './rope-parameters.ts';

/** cos and sin of a rotary embedding on the device, as `qk_norm_rope` reads them. */
export interface RotaryEmbedding {
  readonly rotaryDim: number;
  /** float32 [rows, rotaryDim]: first half cos, second half sin. */
  readonly cosSin: DevicePtr;
}

export interface RotaryEmbeddingsOptions {
  headDim: number;
  maxPositionEmbeddings: number;
  /** Longest sequence that is served: rows of a table. */
  maxModelLen: number;
}

/**
 * The rotary embeddings of a model's layers; layers that rotate alike share a table.
 *
 * Where the frequencies depend on the sequence's length (`longrope`, `dynamic`), a table has two parts, for sequences up to the switch
 * length and, from row maxModelLen on, for longer ones. Which part a sequence uses is said by adding {@link positionOffset} to its
 * positions, so sequences of both kinds run in one batch and neither depends on the other. The choice is made once for a sequence:
 * its cached keys can't be rotated again.
 */
export class RotaryEmbeddings {
  private readonly tables = new Map<RopeParameters, RotaryEmbedding>();
  private readonly switchLength: number | null;
  private readonly maxModelLen: number;

  /** @param ropes of each layer, null: no rotation */
  constructor(device: Device, ropes: readonly (RopeParameters | null)[], options: RotaryEmbeddingsOptions) {
    const distinct = new Set(ropes.filter((rope) => rope !== null));
    this.maxModelLen = options.maxModelLen;
    this.switchLength = commonSwitchLength(distinct, options);
    for (const rope of distinct) {
      const table = this.buildTable(rope, options);
      this.tables.set(rope, {
        rotaryDim: rotaryDim(rope, options.headDim),
        cosSin: device.uploadVector(table, 'rope tables'),
      });
    }
  }

  /** The table of a rope that was given to the constructor. */
  get(rope: RopeParameters): RotaryEmbedding {
    return this.tables.get(rope)!;
  }

  /** What to add to the positions of a sequence of this length. */
  positionOffset(sequenceLength: number): number {
    return this.switchLength !== null && sequenceLength > this.switchLength ? this.maxModelLen : 0;
  }

  private buildTable(rope: RopeParameters, options: RotaryEmbeddingsOptions): Float32Array {
    const lengths = this.switchLength === null ? [1] : [1, options.maxModelLen];
    const dim = rotaryDim(rope, options.headDim);
    const size = options.maxModelLen * dim;
    const table = allocateTable(lengths.length * options.maxModelLen, dim);
    lengths.forEach((sequenceLength, part) => {
      const frequencies = ropeFrequencies(rope, { ...options, sequenceLength });
      fillCosSin(table.subarray(part * size, (part + 1) * size), frequencies);
    });
    return table;
  }
}

function allocateTable(rows: number, dim: number): Float32Array {
  try {
    return new Float32Array(rows * dim);
  } catch {
    throw new Error(
      `There is no memory for a rope table of ${rows} positions with ${dim} values each; --max-model-len sets the positions.`,
    );
  }
}

/** The one length at which frequencies change, null when none changes within maxModelLen. */
function commonSwitchLength(ropes: ReadonlySet<RopeParameters>, options: RotaryEmbeddingsOptions): number | null {
  const lengths = new Set<number>();
  for (const rope of ropes) {
    const length = ropeSwitchLength(rope, options.maxPositionEmbeddings);
    if (length !== null && length < options.maxModelLen) lengths.add(length);
  }
  if (lengths.size > 1) {
    throw new Error(
      `Rotary embeddings change at different lengths (${[...lengths].join(', ')}); expected one for all layers.`,
    );
  }
  return lengths.values().next().value ?? null;
}

/** Positions whose angles are computed by the addition theorem from one pair of cos and sin. */
const STRIDE = 64;

/**
 * Fills [positions, 2 * pairs] with cos | sin of position * frequency. A long table has millions of angles, so position p is split as
 * p = STRIDE * a + b, and cos(p f), sin(p f) follow from those of a and b in float64, well within float32's rounding.
 */
function fillCosSin(table: Float32Array, { inverseFrequencies, attentionFactor }: RopeFrequencies): void {
  const pairs = inverseFrequencies.length;
  const positions = table.length / (2 * pairs);
  const near = (angle: (x: number) => number) =>
    Float64Array.from({ length: pairs * STRIDE }, (_, j) =>
      angle((j % STRIDE) * inverseFrequencies[Math.floor(j / STRIDE)]!),
    );
  const cosNear = near(Math.cos);
  const sinNear = near(Math.sin);
  for (let start = 0; start < positions; start += STRIDE) {
    const count = Math.min(STRIDE, positions - start);
    for (let i = 0; i < pairs; i++) {
      const cosFar = attentionFactor * Math.cos(start * inverseFrequencies[i]!);
      const sinFar = attentionFactor * Math.sin(start * inverseFrequencies[i]!);
      let at = start * 2 * pairs + i;
      for (let j = i * STRIDE; j < i * STRIDE + count; j++) {
        table[at] = cosFar * cosNear[j]! - sinFar * sinNear[j]!;
        table[at + pairs] = sinFar * cosNear[j]! + cosFar * sinNear[j]!;
        at += 2 * pairs;
      }
    }
  }
}
