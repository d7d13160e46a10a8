import { afterAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { modelToGguf } from '../../bench/gguf/model-to-gguf.ts';
import { encodeElements } from '../../bench/gguf/tensor-types.ts';
import { seededRandom } from '../../bench/random.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { openWeights } from '../../src/loader/open-weights.ts';

const folder = mkdtempSync(join(tmpdir(), 'bao-gguf-test-'));
afterAll(() => rmSync(folder, { recursive: true }));

interface ReadTensor {
  /** Innermost first, as in the file. */
  dimensions: number[];
  type: number;
  data: Buffer;
}

/** Reads a file as ggml's description has it, independently of the writer. */
function readGguf(path: string): { metadata: Record<string, unknown>; tensors: Record<string, ReadTensor> } {
  const bytes = readFileSync(path);
  let at = 0;
  const take = (length: number) => {
    at += length;
    return bytes.subarray(at - length, at);
  };
  const u32 = () => take(4).readUInt32LE();
  const u64 = () => Number(take(8).readBigUInt64LE());
  const string = () => take(u64()).toString('utf8');
  const value = (type: number): unknown => {
    if (type === 4) return u32();
    if (type === 5) return take(4).readInt32LE();
    if (type === 6) return take(4).readFloatLE();
    if (type === 8) return string();
    if (type !== 9) throw new Error(`type ${type}`);
    const item = u32();
    return Array.from({ length: u64() }, () => value(item));
  };
  expect(bytes.toString('latin1', 0, 4)).toBe('GGUF');
  at = 4;
  expect(u32()).toBe(3);
  const [numTensors, numValues] = [u64(), u64()];
  const metadata: Record<string, unknown> = {};
  for (let i = 0; i < numValues; i++) {
    const key = string();
    metadata[key] = value(u32());
  }
  const infos = Array.from({ length: numTensors }, () => {
    const name = string();
    const dimensions = Array.from({ length: u32() }, u64);
    return { name, dimensions, type: u32(), offset: u64() };
  });
  const start = Math.ceil(at / 32) * 32;
  const ends = [...infos.slice(1).map(({ offset }) => offset), bytes.length - start];
  const tensors = infos.map(({ name, offset, ...info }, i): [string, ReadTensor] => {
    expect(offset % 32).toBe(0);
    return [name, { ...info, data: bytes.subarray(start + offset, start + ends[i]!) }];
  });
  return { metadata, tensors: Object.fromEntries(tensors) };
}

async function convert(model: string, loadFormat: 'auto' | 'dummy', scheme: Parameters<typeof modelToGguf>[3]) {
  const config = await new EngineArgs({ model, loadFormat, skipTokenizerInit: true }).createEngineConfig();
  const weights = await openWeights(config.model.folder, { loadFormat });
  const path = join(folder, 'model.gguf');
  try {
    modelToGguf(path, config.model.hf, weights, scheme);
    return { file: readGguf(path), hf: config.model.hf };
  } finally {
    weights.close();
  }
}

test('the demo becomes a GGUF that names its shape and holds its weights', async () => {
  const { file, hf } = await convert('demo', 'auto', 'BF16');
  expect(file.metadata).toMatchObject({
    'general.architecture': 'qwen3',
    'qwen3.block_count': hf.numHiddenLayers,
    'qwen3.embedding_length': hf.hiddenSize,
    'qwen3.attention.head_count_kv': hf.numKeyValueHeads,
    'qwen3.attention.key_length': hf.headDim,
    'qwen3.rope.freq_base': hf.rope.theta,
  });
  expect(file.metadata['tokenizer.ggml.tokens']).toHaveLength(hf.vocabSize);
  expect(Object.keys(file.tensors)).toHaveLength(2 + 11 * hf.numHiddenLayers);
  const keys = file.tensors['blk.1.attn_k.weight']!;
  expect(keys.dimensions).toEqual([hf.hiddenSize, hf.numKeyValueHeads * hf.headDim]);
  const weights = await openWeights('models/demo', { loadFormat: 'auto' });
  const { ptr } = weights.get('model.layers.1.self_attn.k_proj.weight');
  const own = Buffer.from((await import('bun:ffi')).toArrayBuffer(ptr as never, 0, 64).slice(0));
  weights.close();
  expect(keys.data.subarray(0, 64)).toEqual(own);
  expect(file.tensors['output_norm.weight']!.type).toBe(0);
});

test("rows of a Llama's heads are put where llama.cpp rotates them", async () => {
  const { file, hf } = await convert('bench/shapes/135m', 'dummy', 'BF16');
  const rowBytes = hf.hiddenSize * 2;
  const row = (data: Buffer, index: number) => data.subarray(index * rowBytes, (index + 1) * rowBytes);
  const weights = await openWeights('', { loadFormat: 'dummy' });
  const shape = [hf.numAttentionHeads * hf.headDim, hf.hiddenSize];
  const { ptr } = weights.get('model.layers.0.self_attn.q_proj.weight', shape);
  const source = Buffer.from((await import('bun:ffi')).toArrayBuffer(ptr as never, 0, shape[0]! * rowBytes).slice(0));
  weights.close();
  const { data } = file.tensors['blk.0.attn_q.weight']!;
  const second = hf.headDim;
  expect(row(data, second)).toEqual(row(source, second));
  expect(row(data, second + 1)).toEqual(row(source, second + hf.headDim / 2));
  expect(row(data, second + 2)).toEqual(row(source, second + 1));
  expect(row(file.tensors['blk.0.attn_v.weight']!.data, 1)).not.toEqual(row(data, 1));
});

test('what is not written is refused by its name', async () => {
  const config = await new EngineArgs({ model: 'demo' }).createEngineConfig();
  const weights = await openWeights('', { loadFormat: 'dummy' });
  const other = { ...config.model.hf, architectures: ['Gemma3ForCausalLM'] };
  expect(() => modelToGguf(join(folder, 'x'), other, weights, 'BF16')).toThrow(/GGUF of Gemma3ForCausalLM/);
});

describe('elements', () => {
  const random = seededRandom(7);
  const values = Float32Array.from({ length: 256 }, () => (random() - 0.5) * 0.1);

  test('Q8_0 keeps each within half a step of its block', () => {
    const bytes = Buffer.from(encodeElements(values, 'Q8_0'));
    expect(bytes).toHaveLength((values.length / 32) * 34);
    values.forEach((value, i) => {
      const block = Math.floor(i / 32) * 34;
      const scale = new DataView(bytes.buffer, bytes.byteOffset).getFloat16(block, true);
      expect(Math.abs(scale * bytes.readInt8(block + 2 + (i % 32)) - value)).toBeLessThan(scale * 0.6);
    });
  });

  test('Q4_0 keeps each within a step of its block', () => {
    const bytes = Buffer.from(encodeElements(values, 'Q4_0'));
    expect(bytes).toHaveLength((values.length / 32) * 18);
    values.forEach((value, i) => {
      const block = Math.floor(i / 32) * 18;
      const scale = new DataView(bytes.buffer, bytes.byteOffset).getFloat16(block, true);
      const byte = bytes[block + 2 + (i % 16)]!;
      const code = i % 32 < 16 ? byte & 15 : byte >> 4;
      expect(Math.abs(scale * (code - 8) - value)).toBeLessThanOrEqual(Math.abs(scale) * 1.01);
    });
  });

  test('blocks of nothing are nothing, and half a block is refused', () => {
    expect(encodeElements(new Float32Array(32), 'Q4_0').subarray(0, 2)).toEqual(Uint8Array.of(0, 0x80));
    expect(() => encodeElements(new Float32Array(16), 'Q8_0')).toThrow(/multiple of 32/);
  });
});
