/** CUDA kernels against the CPU's over shapes that nobody chose, and over all of those that models have. Failures shrink to a small shape. */
import { afterAll, describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import type { Device } from '../../../src/device/device.ts';
import type { FloatDType } from '../../../src/device/dtype.ts';
import { CUDA_DEVICE, openDeviceUnderTest, openReference } from './device-under-test.ts';
import { encoderAttentionCase, layerNormCases } from './encoder-op-cases.ts';
import { groupedCases, pairsOf, permuteCases, routeCases } from './moe-cases.ts';
import {
  type AttentionShape,
  attentionCase,
  linearCases,
  logprobsCases,
  loraCases,
  normCases,
  ropeCases,
  rowCases,
} from './op-cases.ts';
import { firstDifference, type OpCase, runCase } from './op-runner.ts';
import { quantCases, quantizedExpertCases } from './quant-cases.ts';
import {
  activateCase,
  addCase,
  adversarialIds,
  copyBlocksCase,
  copyBytesCase,
  copyHeadsCase,
  embeddingCase,
  gatherRowsCase,
  gatherTokenIdsCase,
  meanRowsCase,
  softCapCase,
} from './row-op-cases.ts';

/** Query heads for a key head: those of the models in the registry's families, and odd ones. */
const GQA_RATIOS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 24, 32, 48, 64, 71, 96, 128];
/** Around the borders of blocks, tiles, ranges of keys and powers of two, up to 4,097. */
const LENGTHS = [1, 15, 16, 17, 63, 64, 65, 127, 129, 511, 512, 513, 1023, 1025, 2047, 2049, 4095, 4096, 4097];
/** Of every property, for each type; the seed makes every run the same. */
const RUNS = { numRuns: 6, seed: 20 };

const size = (max: number) => fc.oneof(fc.integer({ min: 1, max }), fc.constantFrom(1, 31, 32, 33, 64, 65));
const dims = fc.oneof(
  fc.constantFrom(64, 80, 96, 128, 256),
  fc.integer({ min: 1, max: 32 }).map((n) => 8 * n),
);

const attention: fc.Arbitrary<{ shape: AttentionShape; sequences: (readonly [number, number])[] }> = fc
  .record({
    ratio: fc.constantFrom(...GQA_RATIOS.filter((ratio) => ratio <= 16)),
    kvHeads: fc.integer({ min: 1, max: 3 }),
    headDim: dims,
    blockSize: fc.constantFrom(1, 8, 16, 24, 32),
    window: fc.constantFrom(0, 0, 1, 16, 65, 513),
    softCap: fc.constantFrom(0, 0, 0.5, 30),
    withSinks: fc.boolean(),
    fp8: fc.boolean(),
    sequences: fc.array(fc.tuple(fc.oneof(size(90), fc.constantFrom(511, 513, 600)), fc.integer({ min: 0, max: 20 })), {
      minLength: 1,
      maxLength: 4,
    }),
  })
  .map(({ ratio, withSinks, fp8, sequences, ...shape }) => {
    const heads = ratio * shape.kvHeads;
    return {
      shape: {
        ...shape,
        heads,
        ...(withSinks ? { sinks: Array.from({ length: heads }, (_, i) => (i % 5) - 2) } : {}),
        ...(fp8 ? { cacheDtype: 'fp8_e4m3' as const } : {}),
      },
      sequences: sequences.map(([length, queries]) => [length, Math.min(length, queries)] as const),
    };
  });

/** By op or ops: cases of shapes that are generated. */
const PROPERTIES: Record<string, (storage: FloatDType) => fc.Arbitrary<OpCase[]>> = {
  'rms_norm, fused_add_rms_norm': () =>
    fc.tuple(size(1200), fc.integer({ min: 0, max: 9 })).map(([n, rows]) => normCases([n], rows)),
  layer_norm: () => size(1200).map((n) => layerNormCases([n])),
  'linear, linear_f32': () =>
    fc.tuple(fc.integer({ min: 1, max: 40 }), size(90), size(300)).map((shape) => linearCases([shape])),
  'quantized_linear, quantized_linear_f32': () =>
    fc
      .tuple(
        // Around the numbers of rows where another kernel takes them.
        fc.oneof(fc.integer({ min: 1, max: 20 }), fc.constantFrom(64, 65, 130, 200)),
        size(60),
        size(600),
      )
      .map((shape) => quantCases([shape])),
  quantized_grouped_linear: () =>
    fc
      .tuple(fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 1, maxLength: 4 }), size(70), size(300))
      // The output of no rows at all is not there to be compared.
      .map(([counts, n, k]) => quantizedExpertCases([[[...counts, 1], n, k]])),
  add_lora: () =>
    fc
      .tuple(
        size(40),
        size(90),
        fc.array(size(60), { minLength: 1, maxLength: 3 }),
        fc.array(fc.option(fc.integer({ min: 1, max: 64 })), { minLength: 1, maxLength: 3 }),
      )
      // Of fewer rows than adapters some would have none.
      .map(([rows, k, columns, ranks]) => loraCases([[rows + ranks.length, k, columns, ranks]])),
  qk_norm_rope: () =>
    fc.tuple(dims, fc.integer({ min: 1, max: 40 })).map(([headDim, tokens]) => ropeCases([headDim], tokens)),
  act_and_mul: () => fc.tuple(size(700), fc.integer({ min: 0, max: 9 })).map(([n, rows]) => rowCases([n], rows)),
  'reshape_and_cache, paged_attention': (storage) =>
    attention.map(({ shape, sequences }) => [
      attentionCase(JSON.stringify({ shape, sequences }), shape, sequences, storage),
    ]),
  encoder_attention: () =>
    fc
      .record({
        ratio: fc.integer({ min: 1, max: 4 }),
        kvHeads: fc.integer({ min: 1, max: 2 }),
        headDim: dims,
        reach: fc.constantFrom(0, 1, 17, 64),
        lengths: fc.array(fc.integer({ min: 0, max: 70 }), { minLength: 1, maxLength: 3 }),
      })
      .map(({ ratio, lengths, ...shape }) => [
        encoderAttentionCase('generated', { ...shape, heads: ratio * shape.kvHeads }, [...lengths, 1]),
      ]),
  logprobs: () => size(3000).map((vocab) => logprobsCases([vocab])),
  moe_route: () =>
    fc
      .tuple(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 20 }), fc.nat(), fc.nat(), fc.boolean())
      .map(([groups, perGroup, a, b, renormalize]) => {
        const topkGroups = 1 + (a % groups);
        const topK = 1 + (b % Math.min(topkGroups * perGroup, 32));
        const scoring = (a % 2) as 0 | 1;
        return routeCases([{ experts: groups * perGroup, topK, scoring, groups: [groups, topkGroups], renormalize }]);
      }),
  'moe_permute, moe_combine': () =>
    fc
      .tuple(fc.integer({ min: 1, max: 90 }), fc.integer({ min: 1, max: 8 }), size(300))
      .map(([tokens, topK, used]) => permuteCases([['generated', pairsOf(tokens, topK, used), topK, used + 3]])),
  grouped_linear: () =>
    fc
      .tuple(fc.array(fc.integer({ min: 0, max: 70 }), { minLength: 1, maxLength: 4 }), size(80), size(130))
      .map(([counts, n, k]) => groupedCases([['generated', counts, n, k]])),
};

const below = (count: number) => fc.integer({ min: 0, max: count - 1 });
/** None, one, parts of a thread block, and more than one. */
const counts = fc.oneof(fc.integer({ min: 0, max: 1100 }), fc.constantFrom(0, 1, 255, 256, 257, 2049));

/** Those of ops that only look up, copy or change elements: few accesses, so that each is checked where the device is emulated. */
const CHECKED_PROPERTIES: Record<string, () => fc.Arbitrary<OpCase[]>> = {
  embedding: () =>
    fc
      .tuple(
        fc.oneof(size(300), fc.constantFrom(32_000, 151_936, 262_144)),
        fc.oneof(fc.constantFrom(1, 7, 8), size(70)),
        fc.integer({ min: 0, max: 20 }),
        fc.constantFrom(1, 2.5, 0),
      )
      // A great vocabulary has narrow rows here.
      .map(([vocab, hidden, tokens, scale]) => [
        embeddingCase(vocab, vocab > 300 ? 1 + (hidden % 3) : hidden, adversarialIds(vocab, tokens), scale),
      ]),
  gather_rows: () =>
    fc.tuple(size(300), fc.integer({ min: 1, max: 20 })).chain(([n, rows]) =>
      // More rows than there are, the same ones again and again, none.
      fc.array(below(rows), { maxLength: 40 }).map((indices) => [gatherRowsCase(n, rows, indices)]),
    ),
  gather_token_ids: () =>
    fc
      .tuple(size(300), fc.integer({ min: 1, max: 9 }))
      .chain(([ld, slots]) =>
        fc
          .array(fc.tuple(below(slots), fc.oneof(below(ld), fc.constantFrom(0, ld - 1))), { maxLength: 300 })
          .map((tokens) => [gatherTokenIdsCase(ld, slots, tokens)]),
      ),
  copy_bytes: () => counts.map((words) => [copyBytesCase(words)]),
  copy_blocks: () =>
    fc
      .tuple(fc.integer({ min: 1, max: 6 }), size(300))
      .chain(([blocks, words]) =>
        fc
          .array(fc.tuple(below(blocks), below(blocks)), { maxLength: 8 })
          .map((pairs) => [copyBlocksCase(blocks, words, pairs)]),
      ),
  copy_heads: () =>
    fc
      .record({
        tokens: fc.integer({ min: 0, max: 9 }),
        heads: fc.integer({ min: 1, max: 5 }),
        width: size(70),
        padding: fc.constantFrom(0, 1, 64),
        gap: fc.constantFrom(0, 1, 8),
        rest: fc.constantFrom(0, 3),
        shared: fc.boolean(),
      })
      .map((shape) => [copyHeadsCase(shape)]),
  activate: () => fc.tuple(counts, fc.integer({ min: 0, max: 4 })).map(([count, kind]) => [activateCase(count, kind)]),
  mean_rows: () =>
    fc
      .tuple(
        size(300),
        fc.array(fc.tuple(below(20), fc.oneof(fc.constantFrom(0, 1), below(30))), { maxLength: 9 }),
        fc.constantFrom(0 as const, 1 as const),
      )
      .map(([n, spans, outF32]) => [meanRowsCase(n, spans, outF32)]),
  add: () => counts.map((count) => [addCase(count)]),
  soft_cap: () => fc.tuple(counts, fc.constantFrom(0.01, 0.5, 30, 50)).map(([count, cap]) => [softCapCase(count, cap)]),
};

/** For fast-check's reports. */
function named(cases: readonly OpCase[]): readonly OpCase[] {
  return Object.assign([...cases], { [fc.toStringMethod]: () => cases.map(({ name }) => name).join('; ') });
}

/** How outputs of the cases differ between the devices; null where they don't. */
function difference(cpu: Device, cuda: Device, cases: readonly OpCase[], dtype: FloatDType): string | null {
  for (const each of cases) {
    const [expected, actual] = [runCase(cpu, each, dtype), runCase(cuda, each, dtype)];
    for (const [i, name] of each.outputs.entries()) {
      const found = firstDifference(actual[i]!, expected[i]!, dtype);
      if (found !== null) return `${each.name}: ${name}${found}`;
    }
  }
  return null;
}

for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
  describe(`CUDA kernels equal the CPU's over generated shapes, ${CUDA_DEVICE}, ${dtype}`, async () => {
    const cpu = openReference(2);
    const cuda = await openDeviceUnderTest({ activationDtype: dtype, checked: false });
    afterAll(() => {
      cpu.close();
      cuda.close();
    });
    const checked = await openDeviceUnderTest({ activationDtype: dtype, checked: true });
    afterAll(() => checked.close());
    const compare = (cases: readonly OpCase[], device: Device = cuda) =>
      expect(difference(cpu, device, cases, dtype)).toBeNull();

    test.each(Object.entries(PROPERTIES))('%s', (_, cases) => {
      fc.assert(
        // A failure prints the case's name, not its numbers.
        fc.property(cases(dtype).map(named), (each) => compare(each)),
        RUNS,
      );
    });

    test.each(Object.entries(CHECKED_PROPERTIES))('%s, every access checked', (_, cases) => {
      fc.assert(
        fc.property(cases().map(named), (each) => compare(each, checked)),
        { ...RUNS, numRuns: 15 },
      );
    });

    test('paged_attention over every head size that is a multiple of 8', () => {
      for (let headDim = 8; headDim <= 256; headDim += 8) {
        const shape = { heads: 2, kvHeads: 1, headDim, blockSize: 16 };
        const cacheDtype = headDim % 16 === 0 ? dtype : 'fp8_e4m3';
        const sequences = [
          [17, 17],
          [70, 1],
        ] as const;
        compare([attentionCase(`head_dim ${headDim}`, { ...shape, cacheDtype }, sequences, dtype)]);
      }
    });

    test('paged_attention over every ratio of query heads to key heads', () => {
      for (const ratio of GQA_RATIOS) {
        const shape = { heads: 2 * ratio, kvHeads: 2, headDim: 16, blockSize: 16 };
        const sequences = [
          [1, 1],
          [20, 0],
          [40, 3],
        ] as const;
        compare([attentionCase(`ratio ${ratio}`, shape, sequences, dtype)]);
      }
    });

    test('paged_attention of one token after contexts of up to 4,097', () => {
      const shape = { heads: 4, kvHeads: 2, headDim: 64, blockSize: 16 };
      const sequences = LENGTHS.map((length) => [length, 1] as const);
      compare([
        attentionCase('contexts', shape, sequences, dtype),
        attentionCase('the longest alone', shape, [[4097, 2]], dtype),
      ]);
    });
  });
}
