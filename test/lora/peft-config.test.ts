import { describe, expect, test } from 'bun:test';
import { parsePeftConfig, readPeftConfig } from '../../src/lora/peft-config.ts';
import { withFolder } from '../loader/safetensors-file.ts';
import { CONFIG } from './adapter-files.ts';

const parse = (changes: Record<string, unknown> = {}) =>
  parsePeftConfig({ ...CONFIG, ...changes }, 'adapter_config.json');
const Q = 'model.layers.3.self_attn.q_proj';
const DOWN = 'model.layers.10.mlp.down_proj';

describe('rank and scale', () => {
  test('alpha over the rank, or over its root with rsLoRA', () => {
    expect([parse().rankOf(Q), parse().scaleOf(Q)]).toEqual([4, 2]);
    expect(parse({ use_rslora: true }).scaleOf(Q)).toBe(4);
    expect(parse({ lora_alpha: 6.5 }).scaleOf(Q)).toBe(1.625);
  });

  test('by module, with patterns: ends of names and regular expressions, the first that matches', () => {
    const config = parse({
      rank_pattern: { q_proj: 2, 'model\\.layers\\.\\d+\\.mlp\\.down_proj': 16, down_proj: 1 },
      alpha_pattern: { 'layers.3.self_attn.q_proj': 32 },
    });
    expect([config.rankOf(Q), config.scaleOf(Q)]).toEqual([2, 16]);
    expect([config.rankOf(DOWN), config.scaleOf(DOWN)]).toEqual([16, 0.5]);
    expect(config.rankOf('model.layers.3.self_attn.kq_proj')).toBe(4);
  });
});

describe('targets', () => {
  const cases: [name: string, changes: Record<string, unknown>, q: boolean, down: boolean][] = [
    ['all linear layers', { target_modules: 'all-linear' }, true, true],
    ['a list of last parts', { target_modules: ['q_proj', 'proj'] }, true, false],
    ['a list of whole names', { target_modules: [DOWN] }, false, true],
    ['a regular expression for the whole name', { target_modules: '.*\\.(down|up)_proj' }, false, true],
    ['an expression that matches a part only', { target_modules: 'q_proj' }, false, false],
    ['all but those excluded', { target_modules: 'all-linear', exclude_modules: ['q_proj'] }, false, true],
    ['only some layers', { target_modules: ['q_proj', 'down_proj'], layers_to_transform: [10, 11] }, false, true],
    [
      'one layer',
      { target_modules: ['q_proj', 'down_proj'], layers_to_transform: 3, layers_pattern: 'layers' },
      true,
      false,
    ],
    ['layers of another container', { layers_to_transform: [3], layers_pattern: ['blocks'] }, false, false],
  ];
  test.each(cases)('%s', (_, changes, q, down) => {
    const { targets } = parse(changes);
    expect([targets!(Q), targets!(DOWN)]).toEqual([q, down]);
  });

  test('an expression that only Python reads leaves it to the tensors', () => {
    expect(parse({ target_modules: '(?P<x>q)_proj' }).targets).toBeNull();
  });
});

describe('refused by name', () => {
  const cases: [changes: Record<string, unknown>, text: string][] = [
    [{ peft_type: 'IA3' }, 'adapter_config.json: peft_type is "IA3"; only LORA is served.'],
    [{ bias: 'all' }, 'adapter_config.json: bias is "all"; only "none" is served.'],
    [{ use_dora: true }, 'use_dora is true: weight-decomposed adapters (DoRA) are not served'],
    [
      { modules_to_save: ['lm_head'] },
      'modules_to_save has "lm_head"; beside the adapter only classifier or score is served',
    ],
    [{ lora_bias: true }, 'lora_bias is true'],
    [{ trainable_token_indices: [1] }, 'trainable_token_indices is [1]'],
    [{ target_parameters: ['experts.gate_up_proj'] }, 'target_parameters is'],
    [{ layer_replication: [[0, 4]] }, 'layer_replication is'],
    [{ r: 0 }, 'r is 0; expected a positive integer'],
    [{ r: 'eight' }, 'r is "eight"; expected a positive integer'],
    [{ lora_alpha: null }, 'lora_alpha is missing; expected a positive number'],
    [{ target_modules: null }, 'target_modules is missing; expected a list of strings'],
    [{ target_modules: [1] }, 'target_modules is [1]; expected a list of strings'],
    [{ rank_pattern: { '(': 4 } }, 'rank_pattern has the key "(", which is no regular expression'],
    [{ rank_pattern: { q_proj: -1 } }, 'rank_pattern.q_proj is -1; expected a positive integer'],
  ];
  test.each(cases)('%j', (changes, text) => {
    expect(() => parse(changes)).toThrow(text);
  });

  test('what is there and off is fine', () => {
    const off = {
      use_dora: false,
      modules_to_save: null,
      target_parameters: [],
      layer_replication: null,
      arrow_config: null,
    };
    expect(parse({ ...off, loftq_config: {}, init_lora_weights: true, revision: null }).rankOf(Q)).toBe(4);
  });
});

test('a file that is missing, no JSON or no object is named', async () => {
  await withFolder({}, (folder) => {
    expect(() => readPeftConfig(folder)).toThrow(`${folder}/adapter_config.json can't be read as JSON`);
  });
  await withFolder({ 'adapter_config.json': '{' }, (folder) => {
    expect(() => readPeftConfig(folder)).toThrow("adapter_config.json can't be read as JSON");
  });
  await withFolder({ 'adapter_config.json': '[]' }, (folder) => {
    expect(() => readPeftConfig(folder)).toThrow('adapter_config.json must hold a JSON object.');
  });
});
