import { describe, expect, test } from 'bun:test';
import { RotaryEmbeddings } from '../../src/layers/rotary-embedding.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';
import { ReferenceDevice } from '../models/reference-device.ts';
import { floats } from '../models/reference-values.ts';

const CONFIG = {
  architectures: ['Phi3ForCausalLM'],
  model_type: 'phi3',
  vocab_size: 8,
  hidden_size: 8,
  intermediate_size: 8,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 512,
};
const LONGROPE = {
  rope_type: 'longrope',
  short_factor: [1, 2],
  long_factor: [4, 5],
  attention_factor: 1.25,
  original_max_position_embeddings: 64,
};

function build(fields: Record<string, unknown>, maxModelLen: number, device = new ReferenceDevice()) {
  const config = parseHfConfig({ ...CONFIG, ...fields }, 'config.json');
  const { headDim, maxPositionEmbeddings } = config;
  const ropes = new RotaryEmbeddings(device, config.layerRopes, { headDim, maxPositionEmbeddings, maxModelLen });
  return { config, ropes, device };
}

/** Checks one row of a table against cos and sin of the angles. */
function expectRow(table: Float32Array, row: number, position: number, frequencies: number[], factor = 1): void {
  const expected = [
    ...frequencies.map((frequency) => factor * Math.cos(position * frequency)),
    ...frequencies.map((frequency) => factor * Math.sin(position * frequency)),
  ];
  expected.forEach((value, i) => {
    expect(Math.abs(table[row * expected.length + i]! - value)).toBeLessThan(1e-7);
  });
}

describe('rotary tables', () => {
  test('hold cos and sin of every position', () => {
    const { config, ropes } = build({}, 5000);
    const { cosSin, rotaryDim } = ropes.get(config.rope);
    expect(rotaryDim).toBe(4);
    const table = floats(cosSin, 5000 * 4);
    for (const position of [0, 1, 63, 64, 65, 127, 128, 4095, 4999]) expectRow(table, position, position, [1, 0.01]);
  });

  test('beyond all memory are refused by what would make them smaller', () => {
    expect(() => build({}, 2 ** 50)).toThrow(
      'no memory for a rope table of 1125899906842624 positions with 4 values each; --max-model-len',
    );
  });

  test('are shared by layers that rotate alike', () => {
    const { config, device } = build({}, 100);
    expect(config.layerRopes.length).toBe(2);
    expect(device.memoryReport()).toEqual({ 'rope tables': 100 * 4 * 4 });
  });

  test('of longrope have a part for short and one for long sequences', () => {
    const { config, ropes } = build({ rope_scaling: LONGROPE }, 200);
    const table = floats(ropes.get(config.rope).cosSin, 2 * 200 * 4);
    expect([1, 64, 65, 200].map((length) => ropes.positionOffset(length))).toEqual([0, 0, 200, 200]);
    expectRow(table, 150, 150, [1, 0.005], 1.25);
    expectRow(table, 200 + 150, 150, [0.25, 0.002], 1.25);
    expectRow(table, 200, 0, [0.25, 0.002], 1.25);
  });

  test('of longrope have one part when no sequence can be long', () => {
    const { ropes, device } = build({ rope_scaling: LONGROPE }, 64);
    expect(ropes.positionOffset(64)).toBe(0);
    expect(device.memoryReport()).toEqual({ 'rope tables': 64 * 4 * 4 });
  });

  test('of dynamic scale sequences beyond the trained length for the longest one served', () => {
    const { config, ropes } = build({ rope_scaling: { rope_type: 'dynamic', factor: 2 } }, 1024);
    const table = floats(ropes.get(config.rope).cosSin, 2 * 1024 * 4);
    expect([512, 513].map((length) => ropes.positionOffset(length))).toEqual([0, 1024]);
    expectRow(table, 500, 500, [1, 0.01]);
    const base = 10_000 * (2 * 2 - 1) ** (4 / 2);
    expectRow(table, 1024 + 900, 900, [1, base ** -0.5]);
  });
});
