import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CpuDevice } from '../../src/device/cpu-device.ts';
import { readVector } from '../../src/layers/host-vector.ts';
import { openDummyWeights } from '../../src/loader/dummy.ts';
import { openSafetensors } from '../../src/loader/safetensors.ts';
import type { WeightSource } from '../../src/loader/weight-source.ts';
import { fp8ToFloat } from '../device/fp8-reference.ts';
import { FLOAT32_ISA, openDevice } from '../device/harness.ts';
import { encodeSafetensors, type HeaderEntry, withFolder } from '../loader/safetensors-file.ts';
import { goldenPrompts, loadGolden } from './quantized-golden.ts';

const GOLDENS = join(import.meta.dir, '../goldens');
const GROUP = 128;

let device: CpuDevice;
beforeAll(() => {
  device = openDevice(2, FLOAT32_ISA);
});
afterAll(() => device.close());

interface Tensor {
  dtype: 'F32' | 'F8_E4M3';
  shape: number[];
  bytes: Uint8Array;
}

const f32 = (values: Float32Array, shape: number[]): Tensor => ({
  dtype: 'F32',
  shape,
  bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
});

function encode(tensors: ReadonlyMap<string, Tensor>): Buffer {
  const header: Record<string, HeaderEntry> = {};
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of tensors) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes.byteLength] };
    offset += bytes.byteLength;
  }
  return encodeSafetensors(header, Buffer.concat([...tensors.values()].map(({ bytes }) => bytes)));
}

const NUMBERS = Array.from({ length: 127 }, (_, byte) => fp8ToFloat(byte));
/** The byte of the greatest number that is not above |value|, with its sign: one of the ways to round. */
function fp8Byte(value: number): number {
  let [low, high] = [0, 126];
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (NUMBERS[middle]! <= Math.abs(value)) low = middle;
    else high = middle - 1;
  }
  return low | (value < 0 ? 0x80 : 0);
}

/** Rows and columns that share a scale, and how a checkpoint writes the scales' shape. */
interface Layout {
  size(rows: number, cols: number): [rows: number, cols: number];
  suffix: string;
  shape(count: [number, number]): number[];
}

const LAYOUTS: Record<string, { quantization: Record<string, unknown>; layout: Layout }> = {
  'one scale for a matrix': {
    quantization: { quant_method: 'fp8', activation_scheme: 'static' },
    layout: { size: (rows, cols) => [rows, cols], suffix: 'weight_scale', shape: () => [] },
  },
  'blocks of 128 x 128': {
    quantization: { quant_method: 'fp8', activation_scheme: 'dynamic', fmt: 'e4m3', weight_block_size: [128, 128] },
    layout: { size: () => [GROUP, GROUP], suffix: 'weight_scale_inv', shape: (count) => count },
  },
  'a scale for a row, compressed-tensors': {
    quantization: {
      quant_method: 'compressed-tensors',
      format: 'float-quantized',
      config_groups: {
        group_0: {
          targets: ['Linear'],
          weights: { num_bits: 8, type: 'float', strategy: 'channel', symmetric: true, dynamic: false },
          input_activations: { num_bits: 8, type: 'float', strategy: 'token', dynamic: true },
        },
      },
      ignore: ['lm_head'],
      kv_cache_scheme: null,
    },
    layout: { size: (_, cols) => [1, cols], suffix: 'weight_scale', shape: ([rows]) => [rows, 1] },
  },
  'groups of a row, compressed-tensors': {
    quantization: {
      quant_method: 'compressed-tensors',
      format: 'float-quantized',
      config_groups: {
        group_0: { weights: { num_bits: 8, type: 'float', strategy: 'group', group_size: 128, symmetric: true } },
      },
    },
    layout: { size: () => [1, GROUP], suffix: 'weight_scale', shape: (count) => count },
  },
};

/** A matrix as 8-bit floats with scales, and the float32 numbers that they stand for. */
function quantized(values: Float32Array, [rows, cols]: [number, number], layout: Layout) {
  const [height, width] = layout.size(rows, cols);
  const count: [number, number] = [Math.ceil(rows / height), Math.ceil(cols / width)];
  const scales = new Float32Array(count[0] * count[1]);
  const scaleOf = (i: number) => Math.floor(Math.floor(i / cols) / height) * count[1] + Math.floor((i % cols) / width);
  values.forEach((value, i) => {
    scales[scaleOf(i)] = Math.max(scales[scaleOf(i)]!, Math.abs(value) / 448);
  });
  const bytes = Uint8Array.from(values, (value, i) => fp8Byte(value / scales[scaleOf(i)]!));
  const kept = Float32Array.from(bytes, (byte, i) => fp8ToFloat(byte) * scales[scaleOf(i)]!);
  return { bytes, scales, scaleShape: layout.shape(count), kept };
}

/** A golden's checkpoint twice: with projections as 8-bit floats, and as the float32 numbers that these are. */
function checkpoints(source: WeightSource, layout: Layout): { fp8: Buffer; exact: Buffer } {
  const [fp8, exact] = [new Map<string, Tensor>(), new Map<string, Tensor>()];
  for (const name of source.names()) {
    const view = source.get(name);
    const shape = [...view.shape];
    const values = readVector(
      view,
      0,
      shape.reduce((product, size) => product * size, 1),
    );
    if (!/(_proj|w[123])\.weight$/.test(name)) {
      fp8.set(name, f32(values, shape));
      exact.set(name, f32(values, shape));
      continue;
    }
    const { bytes, scales, scaleShape, kept } = quantized(values, shape as [number, number], layout);
    exact.set(name, f32(kept, shape));
    fp8.set(name.replace(/weight$/, layout.suffix), f32(scales, scaleShape));
    fp8.set(name.replace(/weight$/, 'input_scale'), f32(Float32Array.of(0.5), []));
    fp8.set(name, { dtype: 'F8_E4M3', shape, bytes });
  }
  return { fp8: encode(fp8), exact: encode(exact) };
}

const configOf = (golden: string) => JSON.parse(readFileSync(join(GOLDENS, golden, 'config.json'), 'utf8'));

async function logitsOf(golden: string, config: unknown, file: Buffer, asked: string | null = null) {
  return withFolder({ 'model.safetensors': file }, async (folder) => {
    const weights = openSafetensors(folder);
    try {
      const runner = await loadGolden(device, golden, { config, weights, quantization: asked });
      return goldenPrompts(golden).map((ids) => runner.step([{ sequence: runner.addSequence(ids.length), ids }]));
    } finally {
      weights.close();
    }
  });
}

function load<Result>(golden: string, run: (source: WeightSource) => Result): Result {
  const source = openSafetensors(join(GOLDENS, golden));
  try {
    return run(source);
  } finally {
    source.close();
  }
}

describe.each(['llama', 'qwen2', 'mixtral'])('%s of 8-bit floats', (golden) => {
  const config = configOf(golden);

  test.each(Object.entries(LAYOUTS))('%s: the bits of the float32 weights that they are', async (_, each) => {
    const { fp8, exact } = load(golden, (source) => checkpoints(source, each.layout));
    const actual = await logitsOf(golden, { ...config, quantization_config: each.quantization }, fp8);
    expect(actual).toEqual(await logitsOf(golden, config, exact));
  });
});

describe('what is not as it should be', () => {
  const config = configOf('llama');
  const { quantization, layout } = LAYOUTS['blocks of 128 x 128']!;
  const { fp8, exact } = load('llama', (source) => checkpoints(source, layout));
  const withConfig = (fields: object) => ({ ...config, quantization_config: fields });

  test('--quantization may name what the checkpoint is, and nothing else', async () => {
    const expected = await logitsOf('llama', config, exact);
    expect(await logitsOf('llama', withConfig(quantization), fp8, 'fp8')).toEqual(expected);
    await expect(logitsOf('llama', withConfig(quantization), fp8, 'int8')).rejects.toThrow(
      'Quantization method specified in the model config (fp8) does not match the quantization method specified in the `quantization` argument (int8).',
    );
  });

  const group = (weights: object) => ({
    quant_method: 'compressed-tensors',
    format: 'float-quantized',
    config_groups: { group_0: { weights: { num_bits: 8, type: 'float', strategy: 'channel', ...weights } } },
  });
  test.each([
    [{ quant_method: 'awq' }, '(quant_method "awq"); no method is known for them'],
    [{ quant_method: 'fp8', fmt: 'e5m2' }, 'fmt is "e5m2", expected "e4m3"'],
    [{ quant_method: 'fp8', weight_block_size: [64, 128] }, 'weight_block_size is [64,128], expected [128, 128]'],
    [{ quant_method: 'fp8', kv_cache_scheme: { num_bits: 8 } }, 'kv_cache_scheme is set'],
    [{ quant_method: 'compressed-tensors', format: 'pack-quantized' }, 'format is "pack-quantized"'],
    [{ ...group({}), sparsity_config: { format: 'dense' } }, 'sparsity_config is set'],
    [group({ num_bits: 4 }), 'weights of group_0 are 4 bits of type "float", expected 8 of "float"'],
    [group({ type: 'int' }), 'weights of group_0 are 8 bits of type "int", expected 8 of "float"'],
    [group({ symmetric: false }), 'weights of group_0 are not symmetric'],
    [group({ strategy: 'attn_head' }), 'strategy of group_0 is "attn_head"'],
    [group({ strategy: 'group', group_size: 32 }), 'group_size of group_0 is 32, expected 128'],
  ])('%j is refused by name', async (fields, message) => {
    await expect(logitsOf('llama', withConfig(fields), fp8)).rejects.toThrow(message);
  });

  const tensors = (change: (all: Map<string, Tensor>) => void) =>
    load('llama', (source) => {
      const all = new Map<string, Tensor>();
      for (const name of source.names()) {
        const view = source.get(name);
        const values = readVector(
          view,
          0,
          view.shape.reduce((product, size) => product * size, 1),
        );
        all.set(name, f32(values, [...view.shape]));
      }
      change(all);
      return encode(all);
    });
  const Q = 'model.layers.0.self_attn.q_proj';
  const asFp8 = (all: Map<string, Tensor>) => {
    const { shape } = all.get(`${Q}.weight`)!;
    all.set(`${Q}.weight`, { dtype: 'F8_E4M3', shape, bytes: new Uint8Array(shape[0]! * shape[1]!) });
  };

  test('a matrix without scales, with too many, or beside one that is not quantized, is named', async () => {
    const given = withConfig(quantization);
    await expect(logitsOf('llama', given, tensors(asFp8))).rejects.toThrow(
      `${Q}.weight has 8-bit floats, but there is neither ${Q}.weight_scale nor ${Q}.weight_scale_inv`,
    );
    const scales = (shape: number[]) =>
      tensors((all) => {
        asFp8(all);
        const size = shape.reduce((product, length) => product * length, 1);
        all.set(`${Q}.weight_scale_inv`, f32(new Float32Array(size), shape));
      });
    await expect(logitsOf('llama', given, scales([7, 1]))).rejects.toThrow(`${Q}.weight_scale_inv has shape [7, 1]`);
    await expect(logitsOf('llama', given, scales([1]))).rejects.toThrow(
      'self_attn.v_proj: 1 of 3 weights are 8-bit floats; matrices that are multiplied at once must all be',
    );
  });

  test('without a config that says so, a tensor of 8-bit floats is none that can be read', async () => {
    await expect(logitsOf('llama', config, fp8)).rejects.toThrow('has dtype F8_E4M3, which is not supported');
  });

  test('dummy weights are quantized in the checkpoint’s stead', async () => {
    const weights = openDummyWeights({ seed: 1, dtype: 'bfloat16' });
    const bytesWith = async (fields: object | null) => {
      const before = device.memoryReport().weights ?? 0;
      await loadGolden(device, 'llama', {
        config: fields === null ? config : withConfig(fields),
        weights,
        quantization: null,
      });
      return (device.memoryReport().weights ?? 0) - before;
    };
    expect(await bytesWith(quantization)).toBeLessThan((await bytesWith(null)) / 2);
    weights.close();
  });
});
