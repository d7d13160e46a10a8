import { QUANTIZATION_CODES, type QuantizationScheme } from '../../../src/device/quantization-scheme.ts';
import { randomFloats } from '../harness.ts';
import type { BufferSpec, OpCase } from './op-runner.ts';

const SCHEMES = Object.keys(QUANTIZATION_CODES) as QuantizationScheme[];

/** m, n, k: rows of whole vectors in more than one step of a warp, a group and parts of groups, more rows than one pass takes, odd numbers of everything. */
const SHAPES = [
  [2, 6, 1536],
  [1, 5, 128],
  [1, 33, 1],
  [3, 40, 200],
  [17, 9, 531],
  [70, 70, 264],
] as const;

/** Rows of each expert, n, k: experts without rows, with more than a tile of them, and rows that are nobody's. */
const EXPERT_SHAPES = [
  [[2, 1], 6, 512],
  [[1], 5, 128],
  [[0, 3, 0, 1], 33, 70],
  [[9, 0, 20], 17, 200],
  [[70, 1], 70, 136],
] as const;

/** Aligned rows where k is a multiple of what is read at once. */
const rowDistance = (k: number) => (k % 8 === 0 ? k + 8 : k + 3);

type ExpertShape = readonly [counts: readonly number[], n: number, k: number];

export function quantizedExpertCases(shapes: readonly ExpertShape[] = EXPERT_SHAPES): OpCase[] {
  return shapes.flatMap(([counts, n, k]) =>
    SCHEMES.map((scheme): OpCase => {
      const [ldX, ldOut] = [rowDistance(k), n + 5];
      const offsets = [0];
      for (const count of counts) offsets.push(offsets.at(-1)! + count);
      const rows = offsets.at(-1)! + 1;
      const values = counts.map((_, expert) => randomFloats(n * k, expert));
      const biased = k !== 70;
      const bias: Record<string, BufferSpec> = biased
        ? { biases: { type: 'f32', values: randomFloats(counts.length * n, 3) } }
        : {};
      return {
        name: `quantized_grouped_linear ${scheme} [${counts}] rows, ${n}, ${k}`,
        buffers: {
          x: { type: 'act', values: randomFloats(rows * ldX, 1) },
          weights: { type: 'experts', n, k, values, scheme },
          offsets: { type: 'i32', values: offsets },
          out: { type: 'act', values: new Float32Array(rows * ldOut) },
          ...bias,
        },
        steps: [
          {
            op: 'quantized_grouped_linear',
            args: {
              ...{ x: 'x', ld_x: ldX, weights: 'weights', scheme: QUANTIZATION_CODES[scheme] },
              ...{ biases: biased ? 'biases' : 0, expert_offsets: 'offsets', num_experts: counts.length },
              ...{ out: 'out', ld_out: ldOut, rows, n, k },
            },
          },
        ],
        outputs: ['out'],
      };
    }),
  );
}

/** Products with quantized weights, with a row of zeros and a weight that is not finite among them. */
export function quantCases(shapes: readonly (readonly [number, number, number])[] = SHAPES): OpCase[] {
  return shapes.flatMap(([m, n, k]) =>
    SCHEMES.flatMap((scheme) =>
      (['quantized_linear', 'quantized_linear_f32'] as const).map((op): OpCase => {
        const [ldX, ldOut] = [rowDistance(k), n + 5];
        const x = randomFloats(m * ldX, 1).map((value) => value * 3);
        if (m > 2) x.fill(0, ldX, 2 * ldX);
        const values = randomFloats(n * k, 2);
        values.fill(0, 0, k);
        if (n > 8) values[3 * k] = Number.NaN;
        const out = new Float32Array(m * ldOut);
        const output: BufferSpec =
          op === 'quantized_linear' ? { type: 'act', values: out } : { type: 'f32', values: out };
        const biased = m !== 3;
        const bias: Record<string, BufferSpec> = biased ? { bias: { type: 'f32', values: randomFloats(n, 3) } } : {};
        const w = { type: 'quantized' as const, n, k, values, scheme };
        return {
          name: `${op} ${scheme} [${m}, ${n}, ${k}]`,
          buffers: { x: { type: 'act', values: x }, w, out: output, ...bias },
          steps: [
            {
              op,
              args: {
                ...{ x: 'x', ld_x: ldX, w: 'w', scheme: QUANTIZATION_CODES[scheme], bias: biased ? 'bias' : 0 },
                ...{ out: 'out', ld_out: ldOut, m, n, k },
              },
            },
          ],
          outputs: ['out'],
        };
      }),
    ),
  );
}
