import { expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Device, DevicePtr } from '../../src/device/device.ts';
import type { FloatDType } from '../../src/device/dtype.ts';
import { openSafetensors } from '../../src/loader/safetensors.ts';
import { labelsOf } from '../../src/models/labels.ts';
import { loadPoolingModel } from '../../src/models/load-model.ts';
import type { PoolingModel } from '../../src/models/model.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';
import { GoldenRunner, type StepPart } from './golden-runner.ts';
import { floats } from './reference-values.ts';

type Span = 'cls' | 'last' | 'mean';

/** See test/goldens/README.md. */
interface PoolingGolden {
  bf16_error: { mean: number; max: number };
  prompts: ({ ids: number[]; first_type_one?: number; logits?: number[] } & { [S in Span]?: number[] })[];
}

interface PoolingGoldenCase {
  name: string;
  task: 'embed' | 'classify';
  /** The token spans that its values are means of. */
  spans: readonly Span[];
}

/** Folders under test/goldens that are pooled. */
export const POOLING_GOLDENS: readonly PoolingGoldenCase[] = [
  { name: 'bert', task: 'embed', spans: ['cls', 'last', 'mean'] },
  { name: 'bert_classifier', task: 'classify', spans: ['cls'] },
  { name: 'roberta', task: 'embed', spans: ['cls', 'last', 'mean'] },
  { name: 'xlm_roberta_reranker', task: 'classify', spans: ['cls'] },
  { name: 'modernbert', task: 'embed', spans: ['cls', 'last', 'mean'] },
  { name: 'modernbert_classifier', task: 'classify', spans: ['cls'] },
  { name: 'modernbert_reranker', task: 'classify', spans: ['mean'] },
  { name: 'llama_classifier', task: 'classify', spans: ['last'] },
  { name: 'qwen3_embedding', task: 'embed', spans: ['cls', 'last', 'mean'] },
];

const FOLDER = join(import.meta.dir, '../goldens');
const LIMITS = { blockSize: 16, maxNumTokens: 200, maxLogitRows: 64, maxModelLen: 160 };
/** Bounds of float32 runs; the recorded values have five decimals. */
const FLOAT32_ERROR = { mean: 1e-4, max: 1e-3 };

const readJson = (golden: string, file: string) => JSON.parse(readFileSync(join(FOLDER, golden, file), 'utf8'));

/** Runs a golden's model and pools what comes out. */
class PoolingGoldenRunner {
  private constructor(
    private readonly device: Device,
    private readonly runner: GoldenRunner<PoolingModel>,
    private readonly hiddenSize: number,
  ) {}

  static async create(device: Device, { name, task }: PoolingGoldenCase, dtype: FloatDType) {
    const config = parseHfConfig(readJson(name, 'config.json'), `${name}/config.json`);
    const weights = openSafetensors(join(FOLDER, name));
    const options = { device, config, weights, dtype, kvCacheDtype: dtype, ...LIMITS };
    const pooledAs = { convert: task, labels: task === 'classify' ? labelsOf(config) : [], scoreTokens: null };
    try {
      const model = await loadPoolingModel({ ...options, tensorParallel: { rank: 0, size: 1 } }, pooledAs);
      const { hiddenSize } = config;
      const runner = new GoldenRunner(device, model, { ...LIMITS, hiddenSize, maxNumSeqs: 3 });
      return new PoolingGoldenRunner(device, runner, hiddenSize);
    } finally {
      weights.close();
    }
  }

  /** One row of class logits, or of pooled hidden states, for each prompt of a batch: by span. */
  run(prompts: PoolingGolden['prompts'], spans: readonly Span[]): Float32Array[][] {
    this.runner.reset();
    const parts = prompts.map(
      ({ ids, first_type_one: firstTypeOne }): StepPart => ({
        sequence: this.runner.addSequence(ids.length),
        ids,
        firstTypeOne,
      }),
    );
    const { hidden } = this.runner.forward(parts);
    const lengths = prompts.map(({ ids }) => ids.length);
    return spans.map((span) => this.pool(hidden, lengths, span));
  }

  private pool(hidden: DevicePtr, lengths: readonly number[], span: Span): Float32Array[] {
    const { hiddenSize } = this;
    const { head } = this.runner.model;
    const rows = lengths.length;
    const pooled = this.device.alloc(rows * hiddenSize * 4, 'test');
    const bounds = this.device.staging(rows * 8, 'test');
    let first = 0;
    lengths.forEach((length, row) => {
      new Int32Array(bounds.host).set(spanOf(span, first, length), 2 * row);
      first += length;
    });
    bounds.upload();
    const [asAct, asFloat32] = [0, 1];
    this.device.ops.mean_rows(hidden, bounds.ptr, pooled, rows, hiddenSize, head === null ? asFloat32 : asAct);
    const values = head?.forward(pooled, [{ slot: null, numRows: rows }]) ?? pooled;
    this.device.wait(this.device.record());
    const width = head?.width ?? hiddenSize;
    return Array.from({ length: rows }, (_, row) => floats(values + row * width * 4, width).slice());
  }
}

function spanOf(span: Span, first: number, length: number): [start: number, count: number] {
  if (span === 'mean') return [first, length];
  return [span === 'cls' ? first : first + length - 1, 1];
}

/** Declares the tests of one golden on one device and dtype. @param slack how much worse than transformers in bfloat16 the device may be */
export function testPoolingGolden(
  golden: PoolingGoldenCase,
  openDevice: () => Device | Promise<Device>,
  dtype: FloatDType,
  slack = 1,
): void {
  const { prompts, bf16_error }: PoolingGolden = readJson(golden.name, 'golden.json');
  const bound = dtype === 'float32' ? FLOAT32_ERROR : bf16_error;

  test(`${golden.name} ${dtype}: ${golden.task}, alone and in a batch`, async () => {
    const device = await openDevice();
    try {
      const runner = await PoolingGoldenRunner.create(device, golden, dtype);
      const errors: number[] = [];
      const alone = prompts.map((prompt) => runner.run([prompt], golden.spans));
      const batch = runner.run(prompts, golden.spans);
      golden.spans.forEach((span, s) => {
        prompts.forEach((prompt, i) => {
          const actual = alone[i]![s]![0]!;
          const expected = (golden.task === 'classify' ? prompt.logits : prompt[span])!;
          expect(actual.length).toBe(expected.length);
          errors.push(...actual.map((value, j) => Math.abs(value - expected[j]!)));
          expect([...batch[s]![i]!]).toEqual([...actual]);
        });
      });
      expect(Math.max(...errors)).toBeLessThan(2 * slack * bound.max);
      const mean = errors.reduce((sum, error) => sum + error, 0) / errors.length;
      expect(mean).toBeLessThanOrEqual(slack * bound.mean);
    } finally {
      device.close();
    }
  });
}
