import { describe, expect, test } from 'bun:test';
import type { Device } from '../../src/device/device.ts';
import { configureLogging } from '../../src/logging/logger.ts';
import { type LoadModelOptions, loadModel } from '../../src/models/load-model.ts';
import type { CausalLM } from '../../src/models/model.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';
import { registerModel, resolveArchitecture, supportedArchitectures } from '../../src/models/registry.ts';
import { GoldenRunner } from './golden-runner.ts';
import { MemoryWeights } from './memory-weights.ts';
import { ReferenceDevice } from './reference-device.ts';

const HIDDEN = 8;
const INTERMEDIATE = 6;
const VOCAB = 11;

const CONFIG = {
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: VOCAB,
  hidden_size: HIDDEN,
  intermediate_size: INTERMEDIATE,
  num_hidden_layers: 2,
  num_attention_heads: 2,
};

function llamaWeights({ attentionBias = false, mlpBias = false, tied = false } = {}): MemoryWeights {
  const weights = new MemoryWeights().setRandom('model.embed_tokens.weight', [VOCAB, HIDDEN]);
  if (!tied) weights.setRandom('lm_head.weight', [VOCAB, HIDDEN]);
  weights.setRandom('model.norm.weight', [HIDDEN]);
  for (const layer of ['model.layers.0', 'model.layers.1']) {
    for (const name of ['q_proj', 'k_proj', 'v_proj', 'o_proj']) {
      weights.setRandom(`${layer}.self_attn.${name}.weight`, [HIDDEN, HIDDEN]);
      if (attentionBias) weights.setRandom(`${layer}.self_attn.${name}.bias`, [HIDDEN]);
    }
    for (const name of ['gate_proj', 'up_proj']) {
      weights.setRandom(`${layer}.mlp.${name}.weight`, [INTERMEDIATE, HIDDEN]);
      if (mlpBias) weights.setRandom(`${layer}.mlp.${name}.bias`, [INTERMEDIATE]);
    }
    weights.setRandom(`${layer}.mlp.down_proj.weight`, [HIDDEN, INTERMEDIATE]);
    if (mlpBias) weights.setRandom(`${layer}.mlp.down_proj.bias`, [HIDDEN]);
    for (const name of ['input_layernorm', 'post_attention_layernorm']) {
      weights.setRandom(`${layer}.${name}.weight`, [HIDDEN]);
    }
  }
  return weights;
}

function options(
  device: Device,
  weights: MemoryWeights,
  fields: Record<string, unknown> = {},
): LoadModelOptions & { maxNumSeqs: number; hiddenSize: number } {
  return {
    device,
    config: parseHfConfig({ ...CONFIG, ...fields }, 'config.json'),
    weights,
    dtype: 'float32',
    kvCacheDtype: 'float32',
    blockSize: 4,
    maxNumTokens: 8,
    maxLogitRows: 8,
    maxModelLen: 16,
    maxNumSeqs: 1,
    hiddenSize: HIDDEN,
    tensorParallel: { rank: 0, size: 1 },
  };
}

async function logitsOf(weights: MemoryWeights, fields: Record<string, unknown>): Promise<Float32Array> {
  const device = new ReferenceDevice();
  const opts = options(device, weights, fields);
  const runner = new GoldenRunner(device, await loadModel(opts), opts);
  return runner.step([{ sequence: runner.addSequence(3), ids: [1, 5, 2] }]).at(-1)!;
}

describe('registry', () => {
  test('names an unknown architecture and the known ones', async () => {
    const message =
      /Model architecture FooForCausalLM is not supported; supported are .*LlamaForCausalLM.*Qwen3ForCausalLM/;
    const opts = options(new ReferenceDevice(), llamaWeights(), { architectures: ['FooForCausalLM'] });
    await expect(loadModel(opts)).rejects.toThrow(message);
    expect(() => resolveArchitecture(['FooForCausalLM'])).toThrow(message);
  });

  test('takes the first known architecture', () => {
    expect(resolveArchitecture(['FooForCausalLM', 'Qwen2ForCausalLM']).name).toBe('Qwen2ForCausalLM');
  });

  test('serves a model that a plugin registers', async () => {
    const model = { vocabSize: 1 } as CausalLM;
    const seen: number[] = [];
    registerModel('PluginForCausalLM', ({ config }) => {
      seen.push(config.vocabSize);
      return model;
    });
    expect(supportedArchitectures()).toContain('PluginForCausalLM');
    const opts = options(new ReferenceDevice(), new MemoryWeights(), { architectures: ['PluginForCausalLM'] });
    expect(await loadModel(opts)).toBe(model);
    expect(seen).toEqual([VOCAB]);
  });
});

describe('weights', () => {
  test('a missing tensor is named', async () => {
    const opts = options(new ReferenceDevice(), llamaWeights({ tied: true }));
    await expect(loadModel(opts)).rejects.toThrow('tensor "lm_head.weight" is missing');
  });

  test('a misshapen tensor is named', async () => {
    const weights = llamaWeights().setRandom('model.layers.1.mlp.up_proj.weight', [INTERMEDIATE, HIDDEN + 1]);
    await expect(loadModel(options(new ReferenceDevice(), weights))).rejects.toThrow(
      'tensor "model.layers.1.mlp.up_proj.weight" has shape [6,9], expected [6,8]',
    );
  });

  test('that no layer reads are named in a warning, but for those that every checkpoint of a family carries', async () => {
    const weights = llamaWeights({ tied: true })
      .setRandom('lm_head.weight', [VOCAB, HIDDEN])
      .setRandom('model.layers.0.self_attn.rotary_emb.inv_freq', [2])
      .setRandom('model.layers.9.extra.weight', [1]);
    const lines: string[] = [];
    const before = configureLogging({ level: 'info', write: (line) => void lines.push(line) });
    try {
      await loadModel(options(new ReferenceDevice(), weights, { tie_word_embeddings: true }));
    } finally {
      configureLogging(before);
    }
    expect(lines.length).toBe(1);
    expect(lines[0]).toContain("no use for 1 of the checkpoint's tensors: model.layers.9.extra.weight");
  });

  test('quantized ones are refused by name', async () => {
    const opts = options(new ReferenceDevice(), llamaWeights(), { quantization_config: { quant_method: 'awq' } });
    await expect(loadModel(opts)).rejects.toThrow('quantized (quant_method "awq")');
  });

  test('tied embeddings are the head', async () => {
    const tied = llamaWeights({ tied: true });
    const untied = llamaWeights().set('lm_head.weight', [VOCAB, HIDDEN], tied.values('model.embed_tokens.weight'));
    expect(await logitsOf(tied, { tie_word_embeddings: true })).toEqual(await logitsOf(untied, {}));
  });

  test('every bias counts', async () => {
    const fields = { attention_bias: true, mlp_bias: true };
    const full = () => llamaWeights({ attentionBias: true, mlpBias: true });
    const expected = await logitsOf(full(), fields);
    // k's bias shifts all scores of a query alike up to the rotation, so it shows like the others.
    for (const name of ['self_attn.q', 'self_attn.k', 'self_attn.v', 'self_attn.o', 'mlp.gate', 'mlp.up', 'mlp.down']) {
      const bias = `model.layers.0.${name}_proj.bias`;
      const weights = full();
      const zeroed = weights.set(bias, [weights.values(bias).length], new Float32Array(weights.values(bias).length));
      expect(await logitsOf(zeroed, fields), bias).not.toEqual(expected);
    }
  });
});

describe('the model', () => {
  test('says what each layer keeps', async () => {
    const device = new ReferenceDevice();
    const fields = { model_type: 'qwen2', sliding_window: 6, use_sliding_window: true, max_window_layers: 1 };
    const model = await loadModel(options(device, llamaWeights(), fields));
    const pageBytes = device.kvBlockBytes(2, 4, 4, 'float32');
    const common = { blockSize: 4, numKvHeads: 2, headDim: 4, dtype: 'float32', pageBytes } as const;
    expect([...model.kvCacheSpecs()]).toEqual([
      ['model.layers.0.self_attn', { kind: 'full', slidingWindow: 0, ...common }],
      ['model.layers.1.self_attn', { kind: 'sliding-window', slidingWindow: 6, ...common }],
    ]);
  });

  test('needs a cache for each layer', async () => {
    const model = await loadModel(options(new ReferenceDevice(), llamaWeights()));
    expect(() => model.bindKvCache(new Map([['model.layers.0.self_attn', 1]]))).toThrow('model.layers.1.self_attn');
  });

  test('only enqueues ops: nothing is allocated in a step', async () => {
    const device = new ReferenceDevice({ trace: true });
    const opts = options(device, llamaWeights());
    const runner = new GoldenRunner(device, await loadModel(opts), opts);
    const before = device.memoryReport();
    runner.step([{ sequence: runner.addSequence(2), ids: [1, 2] }]);
    expect(device.memoryReport()).toEqual(before);
    const layer = ['linear', 'qk_norm_rope', 'reshape_and_cache', 'paged_attention', 'linear'];
    const mlp = ['fused_add_rms_norm', 'linear', 'act_and_mul', 'linear'];
    expect(device.calls as string[]).toEqual([
      ...['embedding', 'rms_norm', ...layer, ...mlp],
      ...['fused_add_rms_norm', ...layer, ...mlp],
      ...['fused_add_rms_norm', 'linear_f32'],
    ]);
  });
});
