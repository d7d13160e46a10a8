import { afterAll, describe, expect, test } from 'bun:test';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { ConfigError, UsageError } from '../../src/config/config-error.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';

const ROOT = resolve(import.meta.dir, '../..');
const golden = (name: string) => join(ROOT, 'test/goldens', name);
const folder = mkdtempSync(join(tmpdir(), 'bao-pooling-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

const configOf = (given: Partial<FlagValues>) => new EngineArgs(given).createEngineConfig();
const poolingOf = async (given: Partial<FlagValues>) => (await configOf(given)).model.pooling;
const refusal = (given: Partial<FlagValues>) =>
  configOf(given).then(
    () => null,
    (error: unknown) => error,
  );

describe('what a model is run for', () => {
  test('a decoder generates, and is pooled where asked', async () => {
    expect(await poolingOf({})).toBeNull();
    expect(await poolingOf({ runner: 'generate' })).toBeNull();
    const embedding = {
      convert: 'embed',
      task: 'embed',
      seqPoolingType: 'LAST',
      useActivation: true,
      isEncoder: false,
    };
    expect(await poolingOf({ runner: 'pooling' })).toMatchObject(embedding);
    expect(await poolingOf({ convert: 'embed' })).toMatchObject(embedding);
  });

  test('encoders, base models and classifiers are pooled by what their architecture says', async () => {
    expect(await poolingOf({ model: golden('bert') })).toMatchObject({
      convert: 'embed',
      seqPoolingType: 'CLS',
      isEncoder: true,
    });
    expect(await poolingOf({ model: golden('qwen3_embedding') })).toMatchObject({ convert: 'embed', isEncoder: false });
    expect(await poolingOf({ model: golden('llama_classifier') })).toMatchObject({
      convert: 'classify',
      seqPoolingType: 'LAST',
      classActivation: 'softmax',
      labels: ['LABEL_0', 'LABEL_1', 'LABEL_2'],
    });
    expect(await poolingOf({ model: golden('modernbert_reranker') })).toMatchObject({
      convert: 'classify',
      seqPoolingType: 'MEAN',
      classActivation: 'sigmoid',
    });
  });

  test('what it can not do is refused', async () => {
    expect(await refusal({ model: golden('bert'), runner: 'generate' })).toBeInstanceOf(ConfigError);
    expect(await refusal({ runner: 'pooling', convert: 'none' })).toBeInstanceOf(ConfigError);
    expect(await refusal({ runner: 'draft' })).toBeInstanceOf(ConfigError);
    expect(await refusal({ poolerConfig: { pooling_type: 'MEAN' } })).toBeInstanceOf(ConfigError);
  });

  test('prompts are whole unless the last hidden state is all that counts', async () => {
    const chunked = async (given: Partial<FlagValues>) => {
      const { scheduler, cache, model } = await configOf(given);
      expect(scheduler.enableChunkedPrefill).toBe(cache.enablePrefixCaching);
      if (!scheduler.enableChunkedPrefill) {
        expect(scheduler.maxNumBatchedTokens).toBeGreaterThanOrEqual(model.maxModelLen);
      }
      return scheduler.enableChunkedPrefill;
    };
    expect(await chunked({ runner: 'pooling' })).toBe(true);
    expect(await chunked({ runner: 'pooling', poolerConfig: { pooling_type: 'MEAN' } })).toBe(false);
    expect(await chunked({ model: golden('modernbert') })).toBe(false);
  });
});

describe('--pooler-config', () => {
  const pooler = (poolerConfig: Record<string, unknown>) => ({ runner: 'pooling' as const, poolerConfig });

  test('goes before the model', async () => {
    const given = { pooling_type: 'mean', use_activation: false, task: 'token_embed', logit_mean: 2, logit_sigma: 0.5 };
    expect(await poolingOf(pooler(given))).toMatchObject({
      seqPoolingType: 'MEAN',
      useActivation: false,
      task: 'token_embed',
      logitMean: 2,
      logitSigma: 0.5,
    });
    expect(await poolingOf(pooler({ pooling_type: 'ALL' }))).toMatchObject({ seqPoolingType: 'LAST' });
    expect(await poolingOf(pooler({ seq_pooling_type: 'CLS', tok_pooling_type: 'ALL' }))).toMatchObject({
      seqPoolingType: 'CLS',
    });
  });

  test.each([
    [{ pooling_type: 'MAX' }, UsageError, /one of CLS, LAST, MEAN, ALL/],
    [{ pooling_type: 'CLS', seq_pooling_type: 'CLS' }, UsageError, /not both/],
    [{ enable_chunked_processing: true }, UsageError, /not supported/],
    [{ speed: 1 }, UsageError, /has no speed/],
    [{ use_activation: 'yes' }, UsageError, /true or false/],
    [{ logit_sigma: 0 }, UsageError, /other than 0/],
    [{ dimensions: 8 }, ConfigError, /matryoshka/],
    [{ task: 'classify' }, ConfigError, /embed, token_embed/],
  ])('%j is refused', async (given, type, message) => {
    const error = await refusal(pooler(given));
    expect(error).toBeInstanceOf(type);
    expect((error as Error).message).toMatch(message);
  });
});

describe('Sentence Transformers files', () => {
  function modelWith(name: string, pooling: object, modules: readonly string[]): string {
    const path = join(folder, name);
    cpSync(golden('bert'), path, { recursive: true });
    mkdirSync(join(path, '1_Pooling'));
    writeFileSync(join(path, '1_Pooling/config.json'), JSON.stringify(pooling));
    const list = modules.map((each, i) => ({
      path: i === 0 ? '' : `${i}_${each}`,
      type: `sentence_transformers.models.${each}`,
    }));
    writeFileSync(join(path, 'modules.json'), JSON.stringify(list));
    return path;
  }

  test('say how it is pooled, how long a text may be, and whether the result is normalized', async () => {
    const { model } = await configOf({ model: golden('sentence_bert') });
    expect(model.pooling).toMatchObject({ seqPoolingType: 'MEAN', useActivation: true });
    expect(model.maxModelLen).toBe(32);
    const last = modelWith('last', { pooling_mode_lasttoken: true }, ['Transformer', 'Pooling']);
    expect(await poolingOf({ model: last })).toMatchObject({ seqPoolingType: 'LAST', useActivation: false });
    const recent = modelWith('recent', { pooling_mode: 'lasttoken' }, ['base.Transformer', 'Pooling', 'Normalize']);
    expect(await poolingOf({ model: recent })).toMatchObject({ seqPoolingType: 'LAST', useActivation: true });
  });

  test('say what an embedding goes through, whether texts are made lower case, and what goes before them', async () => {
    const path = modelWith('dense', { pooling_mode_cls_token: true }, ['Transformer', 'Pooling', 'Dense', 'Normalize']);
    const write = (file: string, value: object) => writeFileSync(join(path, file), JSON.stringify(value));
    mkdirSync(join(path, '2_Dense'));
    const sizes = { in_features: 48, out_features: 16 };
    const activation = (name: string) =>
      write('2_Dense/config.json', {
        ...sizes,
        bias: false,
        activation_function: `torch.nn.modules.activation.${name}`,
      });
    activation('Tanh');
    write('sentence_roberta_config.json', { max_seq_length: 17, do_lower_case: true });
    write('config_sentence_transformers.json', {
      prompts: { query: 'query: ', document: '' },
      default_prompt_name: null,
    });
    const { model } = await configOf({ model: path });
    expect(model.maxModelLen).toBe(17);
    expect(model.pooling).toMatchObject({
      dense: [{ path: '2_Dense', inFeatures: 48, outFeatures: 16, bias: false, act: 'tanh' }],
      lowerCases: true,
      prompts: { query: 'query: ', document: '' },
    });
    activation('Softshrink');
    expect(String(await refusal({ model: path }))).toContain('Softshrink');
    write('2_Dense/config.json', { in_features: 0 });
    expect(String(await refusal({ model: path }))).toContain('in_features must be a whole number');
    write('2_Dense/config.json', { ...sizes, module_input_name: 'token_embeddings' });
    expect(String(await refusal({ model: path }))).toContain('module_input_name');
  });

  test('a module or mode that is not served is an error that names it', async () => {
    const modules = {
      norm: ['Transformer', 'Pooling', 'LayerNorm'],
      order: ['Transformer', 'Pooling', 'Normalize', 'Dense'],
    };
    const norm = modelWith('norm', { pooling_mode_cls_token: true }, modules.norm);
    expect(String(await refusal({ model: norm }))).toContain('models.LayerNorm');
    const order = modelWith('order', { pooling_mode_cls_token: true }, modules.order);
    expect(String(await refusal({ model: order }))).toContain('in the order Transformer, Pooling, Normalize, Dense');
    const max = modelWith('max', { pooling_mode_max_tokens: true }, ['Transformer', 'Pooling']);
    expect(String(await refusal({ model: max }))).toContain('pooling_mode_max_tokens');
  });
});

test("RoBERTa's positions start behind its padding, so its texts are shorter than its table", async () => {
  const { model } = await configOf({ model: golden('roberta') });
  expect(model.hf).toMatchObject({ maxPositionEmbeddings: 162, firstPosition: 2 });
  expect(model.maxModelLen).toBe(160);
});
