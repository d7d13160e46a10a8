import { describe, expect, test } from 'bun:test';
import { HfConfigError } from '../../src/models/config-fields.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';

const LLAMA = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 320,
  hidden_size: 64,
  intermediate_size: 112,
  num_hidden_layers: 3,
  num_attention_heads: 4,
};

const MISTRAL = { model_type: 'mistral', num_key_value_heads: 2 };

const QWEN2 = { model_type: 'qwen2', use_sliding_window: true };

const parse = (fields: Record<string, unknown>) => parseHfConfig({ ...LLAMA, ...fields }, 'config.json');

describe('defaults', () => {
  test("of mixtures of experts; DeepSeek's head size is that of what is rotated", () => {
    expect(parse({ model_type: 'mixtral', num_attention_heads: 8 })).toMatchObject({
      maxPositionEmbeddings: 131_072,
      numKeyValueHeads: 8,
      slidingWindows: [0, 0, 0],
      rope: { theta: 1_000_000 },
    });
    expect(parse({ model_type: 'gpt_oss', num_attention_heads: 8 })).toMatchObject({
      headDim: 64,
      slidingWindows: [128, 0, 128],
      rope: { theta: 150_000 },
    });
    expect(parse({ model_type: 'deepseek_v3' }).headDim).toBe(64);
    expect(parse({ model_type: 'deepseek_v3', qk_rope_head_dim: 8, head_dim: 24 }).headDim).toBe(8);
  });

  test('of Llama', () => {
    const config = parse({});
    expect(config).toMatchObject({
      numKeyValueHeads: 4,
      headDim: 16,
      hiddenAct: 'silu',
      rmsNormEps: 1e-6,
      maxPositionEmbeddings: 2048,
      tieWordEmbeddings: false,
      attentionBias: false,
      mlpBias: false,
      slidingWindows: [0, 0, 0],
      bosTokenId: 1,
      eosTokenIds: [2],
      torchDtype: 'float32',
    });
    expect(config.rope).toMatchObject({ ropeType: 'default', theta: 10_000, partialRotaryFactor: 1 });
    expect(config.layerRopes).toEqual([config.rope, config.rope, config.rope]);
  });

  test('of a family where they differ', () => {
    expect(parse({ model_type: 'mistral', num_attention_heads: 8 })).toMatchObject({
      maxPositionEmbeddings: 131_072,
      slidingWindows: [4096, 4096, 4096],
    });
    expect(parse({ model_type: 'qwen3' }).headDim).toBe(128);
    expect(parse({ model_type: 'smollm3' })).toMatchObject({ tieWordEmbeddings: true, rope: { theta: 2_000_000 } });
    expect(parse({ model_type: 'gemma3_text', hidden_activation: 'gelu' }).hiddenAct).toBe('gelu');
  });

  test('null means "derive it", not "take the family\'s"', () => {
    expect(parse({ head_dim: null }).headDim).toBe(16);
    expect(parse({ model_type: 'mistral', num_key_value_heads: null }).numKeyValueHeads).toBe(4);
    expect(parse({ ...MISTRAL, sliding_window: null }).slidingWindows).toEqual([0, 0, 0]);
    expect(parse({ bos_token_id: null, eos_token_id: null })).toMatchObject({ bosTokenId: null, eosTokenIds: [] });
  });
});

describe('transformers 4 and 5', () => {
  const scaling = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 64 };

  test('say the same of rotary embeddings', () => {
    const four = parse({ rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', ...scaling } });
    const old = parse({ rope_theta: 5e5, rope_scaling: { type: 'llama3', ...scaling } });
    const five = parse({ rope_parameters: { rope_theta: 5e5, rope_type: 'llama3', ...scaling } });
    expect(four.rope).toMatchObject({
      ropeType: 'llama3',
      theta: 5e5,
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositionEmbeddings: 64,
    });
    expect(old.rope).toEqual(four.rope);
    expect(five.rope).toEqual(four.rope);
  });

  test('by layer type', () => {
    const types = ['sliding_attention', 'full_attention', 'sliding_attention'];
    const five = parse({
      model_type: 'gemma3_text',
      layer_types: types,
      sliding_window: 32,
      rope_parameters: {
        full_attention: { rope_type: 'linear', factor: 8, rope_theta: 1e6 },
        sliding_attention: { rope_type: 'default', rope_theta: 1e4 },
      },
    });
    expect(five.layerRopes.map((rope) => [rope?.ropeType, rope?.theta])).toEqual([
      ['default', 1e4],
      ['linear', 1e6],
      ['default', 1e4],
    ]);
    expect(five.slidingWindows).toEqual([32, 0, 32]);
    const four = parse({
      model_type: 'gemma3_text',
      layer_types: types,
      sliding_window: 32,
      rope_theta: 1e6,
      rope_local_base_freq: 1e4,
      rope_scaling: { rope_type: 'linear', factor: 8 },
    });
    expect(four.layerRopes).toEqual(five.layerRopes);
    expect(four.layerRopes[0]).toBe(four.layerRopes[2]!);
  });

  test('of the weights’ type', () => {
    expect(parse({ torch_dtype: 'bfloat16' }).torchDtype).toBe('bfloat16');
    expect(parse({ dtype: 'float16' }).torchDtype).toBe('float16');
  });

  test('older names of longrope, and the original length beside it', () => {
    const factors = Array.from({ length: 8 }, () => 2);
    const config = parse({
      model_type: 'phi3',
      max_position_embeddings: 512,
      original_max_position_embeddings: 64,
      rope_scaling: { type: 'su', short_factor: factors, long_factor: factors },
    });
    expect(config.rope).toMatchObject({ ropeType: 'longrope', originalMaxPositionEmbeddings: 64, factor: 8 });
  });
});

describe('layers', () => {
  test('Qwen has a window only where it is switched on, from max_window_layers', () => {
    const qwen = { model_type: 'qwen2', sliding_window: 32, max_window_layers: 1 };
    expect(parse(qwen).slidingWindows).toEqual([0, 0, 0]);
    expect(parse({ ...qwen, use_sliding_window: true }).slidingWindows).toEqual([0, 32, 32]);
    const layer_types = ['sliding_attention', 'full_attention', 'full_attention'];
    expect(parse({ ...qwen, use_sliding_window: true, layer_types }).slidingWindows).toEqual([32, 0, 0]);
  });

  test('SmolLM3 has layers without rotation', () => {
    const rotates = (fields: object) =>
      parse({ model_type: 'smollm3', num_hidden_layers: 4, ...fields }).layerRopes.map((rope) => rope !== null);
    expect(rotates({})).toEqual([true, true, true, false]);
    expect(rotates({ no_rope_layer_interval: 2 })).toEqual([true, false, true, false]);
    expect(rotates({ no_rope_layers: [0, 1, 1, 1] })).toEqual([false, true, true, true]);
  });

  test('several ids may end the text', () => {
    expect(parse({ eos_token_id: [5, 6] }).eosTokenIds).toEqual([5, 6]);
  });
});

describe('errors name the file, the field and what would be right', () => {
  const cases: [Record<string, unknown>, string][] = [
    [{ hidden_size: undefined }, 'config.json: hidden_size is missing; expected a positive integer.'],
    [{ vocab_size: '320' }, 'config.json: vocab_size is "320"; expected a positive integer.'],
    [{ num_hidden_layers: 1e9 }, 'config.json: num_hidden_layers is 1000000000; expected at most 10000.'],
    [{ num_hidden_layers: 2.5 }, 'config.json: num_hidden_layers is 2.5; expected a positive integer.'],
    [{ rms_norm_eps: -1 }, 'config.json: rms_norm_eps is -1; expected a positive number.'],
    [{ tie_word_embeddings: 1 }, 'config.json: tie_word_embeddings is 1; expected true or false.'],
    [{ architectures: [] }, 'config.json: architectures is empty; expected the name of a model class.'],
    [
      { num_key_value_heads: 3 },
      'config.json: num_attention_heads is 4; expected a multiple of num_key_value_heads, which is 3.',
    ],
    [
      { hidden_size: 66 },
      'config.json: hidden_size is 66; without head_dim, expected a multiple of num_attention_heads, which is 4.',
    ],
    [{ eos_token_id: 'x' }, 'config.json: eos_token_id is "x"; expected a token id or a list of them.'],
    [{ torch_dtype: 'int8' }, 'config.json: torch_dtype is "int8"; known types: float32, bfloat16, float16.'],
    [
      { layer_types: ['full_attention'] },
      'config.json: layer_types has 1 entries; expected num_hidden_layers, which is 3.',
    ],
    [
      { ...MISTRAL, layer_types: ['full_attention', 'mamba', 'full_attention'] },
      'config.json: layer_types has "mamba"; known layer types: full_attention, sliding_attention.',
    ],
    [
      { model_type: 'smollm3', num_key_value_heads: 2, no_rope_layers: [1, 0] },
      'config.json: no_rope_layers has 2 entries; expected one for each layer.',
    ],
    [
      { ...QWEN2, max_window_layers: 'all' },
      'config.json: max_window_layers is "all"; expected an integer of 0 or more.',
    ],
    [{ rope_scaling: [] }, 'config.json: rope_scaling is []; expected an object.'],
    [
      { rope_scaling: { type: 'xpos' } },
      'config.json: rope_scaling.type is "xpos"; known rope types: default, linear, dynamic, llama3, yarn, longrope.',
    ],
    [
      { rope_scaling: { rope_type: 'linear' } },
      'config.json: rope_scaling.factor is missing; rope type "linear" needs it.',
    ],
    [
      { rope_parameters: { rope_type: 'longrope', short_factor: [1], long_factor: [1] } },
      'config.json: rope_parameters.short_factor has 1 numbers; expected 8, one for each rotated pair of a head.',
    ],
  ];
  for (const [fields, message] of cases) {
    test(message, () => {
      expect(() => parse(fields)).toThrow(HfConfigError);
      expect(() => parse(fields)).toThrow(message);
    });
  }

  test('what is not an object', () => {
    expect(() => parseHfConfig([1], 'config.json')).toThrow('config.json: expected a JSON object, got [1].');
  });
});
