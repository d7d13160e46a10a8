import { describe, expect, test } from 'bun:test';
import { join } from 'node:path';
import { openSafetensorsFiles } from '../../src/loader/safetensors.ts';
import { openAdapterWeights } from '../../src/lora/adapter-folder.ts';
import { collectAdapterWeights, type LoRAModules } from '../../src/lora/adapter-weights.ts';
import { parsePeftConfig } from '../../src/lora/peft-config.ts';
import { withFolder } from '../loader/safetensors-file.ts';
import { adapterFiles, adapterTensors, CONFIG, type Tensors } from './adapter-files.ts';

const Q = 'model.layers.0.self_attn.q_proj';
const DOWN = 'model.layers.0.mlp.down_proj';
const MODULES: LoRAModules = new Map([
  [Q, [6, 5]],
  [DOWN, [5, 7]],
]);
const REPLACEABLE = new Map([
  ['classifier.dense', { shape: [5, 5] as const, maxRows: null, bias: true }],
  ['classifier.out_proj', { shape: [3, 5] as const, maxRows: 4, bias: true }],
  ['score', { shape: [2, 5] as const, maxRows: 2, bias: false }],
]);
const A = `base_model.model.${Q}.lora_A.weight`;
const B = `base_model.model.${Q}.lora_B.weight`;
const tensor = (...shape: number[]) => ({ shape, values: new Array(shape.reduce((a, b) => a * b, 1)).fill(1) });

/** Modules found, with rank and scale. */
function collect(tensors: Tensors, config: object = {}, maxRank = 16) {
  return withFolder(adapterFiles(tensors), (folder) => {
    const source = openSafetensorsFiles([join(folder, 'adapter_model.safetensors')]);
    try {
      const modules = { linear: MODULES, replaceable: REPLACEABLE };
      const { linear, saved } = collectAdapterWeights(
        source,
        parsePeftConfig({ ...CONFIG, ...config }, 'config'),
        modules,
        maxRank,
      );
      return [
        ...[...linear].map(([module, { rank, scale, a, b }]) => [module, rank, scale, a.name, b.name]),
        ...[...saved].map(([module, { weight, bias }]) => [module, weight.name, bias?.name ?? null]),
      ];
    } finally {
      source.close();
    }
  });
}

const all = () => adapterTensors(MODULES, 4, 1);
const without = (tensors: Tensors, ...names: string[]) =>
  Object.fromEntries(Object.entries(tensors).filter(([name]) => !names.includes(name)));

test('finds both tensors of every module, under the names that PEFT gives them', async () => {
  expect(await collect(all())).toEqual([
    [Q, 4, 2, A, B],
    [DOWN, 4, 2, `base_model.model.${DOWN}.lora_A.weight`, `base_model.model.${DOWN}.lora_B.weight`],
  ]);
  const bare = { [`${Q}.lora_A.default.weight`]: tensor(4, 5), [`${Q}.lora_B.default.weight`]: tensor(6, 4) };
  expect(await collect(bare, { target_modules: ['q_proj'] })).toHaveLength(1);
});

test('ranks and scales may differ by module', async () => {
  const tensors = { ...all(), [A]: tensor(2, 5), [B]: tensor(6, 2) };
  const found = await collect(tensors, { rank_pattern: { q_proj: 2 } });
  expect(found.map(([, rank, scale]) => [rank, scale])).toEqual([
    [2, 4],
    [4, 2],
  ]);
});

test('finds modules by the names of a model without a head, and with one', async () => {
  const renamed = (from: string, to: string) =>
    Object.fromEntries(Object.entries(all()).map(([name, value]) => [name.replace(from, to), value]));
  for (const tensors of [renamed('model.layers', 'layers'), renamed('model.layers', 'bert.model.layers')]) {
    expect((await collect(tensors)).map(([module]) => module)).toEqual([Q, DOWN]);
  }
  // An expression is about the adapter's own names.
  const found = await collect(renamed('model.layers', 'layers'), { target_modules: 'layers\\.0\\..*' });
  expect(found).toHaveLength(2);
});

test('finds what the adapter has in place of a head', async () => {
  const head = {
    'base_model.model.classifier.dense.weight': tensor(5, 5),
    'base_model.model.classifier.dense.bias': tensor(5),
    'base_model.model.classifier.modules_to_save.default.out_proj.weight': tensor(3, 5),
  };
  const saved = { modules_to_save: ['classifier', 'score'] };
  expect((await collect({ ...all(), 'base_model.model.score.weight': tensor(2, 5) }, saved)).at(-1)).toEqual([
    'score',
    'base_model.model.score.weight',
    null,
  ]);
  expect(collect({ ...all(), ...head }, saved)).rejects.toThrow('classifier.modules_to_save.default.out_proj');
});

test('the matrix of the classes may have as many rows as it is given, the layer before it has the model’s', async () => {
  const saved = { modules_to_save: ['classifier'] };
  const head = (dense: number, classes: number, biases = classes) => ({
    ...all(),
    'base_model.model.classifier.dense.weight': tensor(dense, 5),
    'base_model.model.classifier.dense.bias': tensor(dense),
    'base_model.model.classifier.out_proj.weight': tensor(classes, 5),
    'base_model.model.classifier.out_proj.bias': tensor(biases),
  });
  for (const classes of [1, 3, 4]) expect(await collect(head(5, classes), saved)).toHaveLength(4);
  expect(collect(head(5, 5), saved)).rejects.toThrow('has 5 classes, more than 4');
  expect(collect(head(4, 3), saved)).rejects.toThrow('has shape [4, 5], expected [5, 5]');
  expect(collect(head(5, 4, 3), saved)).rejects.toThrow('has shape [3], expected [4]');
});

test("BERT's pooler, which is run only in front of classes, changes nothing elsewhere", async () => {
  const pooler = { 'base_model.model.pooler.dense.lora_A.weight': tensor(4, 5) };
  expect(await collect({ ...all(), ...pooler })).toHaveLength(2);
});

describe('refused', () => {
  const cases: [name: string, tensors: Tensors, config: object, text: string][] = [
    ['a missing A', without(all(), A), {}, `${Q}: lora_A is missing beside ${B}.`],
    ['a missing B', without(all(), B), {}, `${Q}: lora_B is missing beside ${A}.`],
    [
      'a target without tensors',
      without(all(), A, B),
      {},
      `${Q}: the adapter targets it, but has no lora_A and lora_B for it.`,
    ],
    [
      'a wrong A',
      { ...all(), [A]: tensor(4, 6) },
      {},
      `tensor "${A}" has shape [4, 6], expected [4, 5]. It was made for a-model.`,
    ],
    ['a wrong B', { ...all(), [B]: tensor(4, 6) }, {}, `tensor "${B}" has shape [4, 6], expected [6, 4].`],
    ['another rank than it says', all(), { r: 8 }, `tensor "${A}" has shape [4, 5], expected [8, 5].`],
    [
      'a layer that is not there',
      { ...all(), 'base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight': tensor(4, 5) },
      {},
      'the model has no module model.layers.9.self_attn.q_proj.',
    ],
    [
      'another kind of layer',
      { ...all(), 'base_model.model.model.layers.0.conv.lora_A.weight': tensor(4, 5) },
      {},
      'expected target modules in q_proj, down_proj.',
    ],
    [
      'the embedding',
      { ...all(), 'base_model.model.model.embed_tokens.lora_embedding_A': tensor(4, 5) },
      {},
      'adapters of the embedding and of the output layer are not served',
    ],
    [
      'the output layer',
      { ...all(), 'base_model.model.lm_head.lora_A.weight': tensor(4, 5) },
      {},
      'adapters of the embedding and of the output layer are not served',
    ],
    [
      'experts',
      { ...all(), 'base_model.model.model.layers.0.mlp.experts.3.up_proj.lora_A.weight': tensor(4, 5) },
      {},
      'adapters of the experts of a mixture are not served',
    ],
    [
      'some other tensor',
      { ...all(), 'model.norm.weight': tensor(4) },
      {},
      'expected the lora_A or lora_B of a linear layer',
    ],
    [
      'a head that the model has not',
      { ...all(), 'base_model.model.classifier.weight': tensor(3, 5) },
      { modules_to_save: ['classifier'] },
      'the model has no layer classifier that an adapter may bring in its place',
    ],
    [
      'a head of more classes',
      { ...all(), 'base_model.model.score.weight': tensor(3, 5) },
      { modules_to_save: ['score'] },
      'has 3 classes, more than 2; --max-lora-cls-labels',
    ],
    [
      'a head without its bias',
      { ...all(), 'base_model.model.classifier.dense.weight': tensor(5, 5) },
      { modules_to_save: ['classifier'] },
      'classifier.dense.bias is missing',
    ],
    ['nothing at all', {}, { target_modules: [] }, 'The adapter has no weights.'],
  ];
  test.each(cases)('%s', async (_, tensors, config, text) => {
    expect(collect(tensors, config)).rejects.toThrow(text);
  });

  test('a rank above the limit', () => {
    expect(collect(all(), {}, 3)).rejects.toThrow('LoRA rank 4 is greater than max_lora_rank 3.');
  });

  test('a folder without the file, with a word about pickles', async () => {
    await withFolder({ 'adapter_model.bin': '' }, (folder) => {
      expect(() => openAdapterWeights(folder)).toThrow(
        `${folder}: adapter_model.safetensors is missing. adapter_model.bin is not read: save it as safetensors.`,
      );
    });
  });
});
