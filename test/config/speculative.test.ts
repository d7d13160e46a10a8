import { describe, expect, test } from 'bun:test';
import { join, resolve } from 'node:path';
import { ConfigError } from '../../src/config/config-error.ts';
import { EngineArgs, type ModelEnvironment, type ModelFolderOptions } from '../../src/config/engine-args.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';

const ROOT = resolve(import.meta.dir, '../..');
const golden = (name: string) => join(ROOT, 'test/goldens', name);

const configOf = (given: Partial<FlagValues>) => new EngineArgs(given).createEngineConfig();
const speculation = (speculativeConfig: Record<string, unknown>, given: Partial<FlagValues> = {}) =>
  configOf({ speculativeConfig, ...given });

describe('n-grams', () => {
  const ngram = { method: 'ngram', numSpeculativeTokens: 3, promptLookupMin: 5, promptLookupMax: 5 };
  const json = { method: 'ngram', num_speculative_tokens: 3 };

  test.each<[Partial<FlagValues>, Record<string, number>]>([
    [{ speculativeConfig: json }, {}],
    [{ speculativeConfig: { model: 'ngram', num_speculative_tokens: 3 } }, {}],
    [{ speculativeConfig: { method: '[ngram]', model: '[ngram]', num_speculative_tokens: 3 } }, {}],
    [{ specMethod: 'ngram', specTokens: 3 }, {}],
    [{ specModel: 'ngram', specTokens: 3 }, {}],
    [{ specMethod: 'ngram', speculativeConfig: json, specTokens: 3 }, {}],
    [{ speculativeConfig: { ...json, prompt_lookup_max: 4 } }, { promptLookupMin: 4, promptLookupMax: 4 }],
    [{ speculativeConfig: { ...json, prompt_lookup_min: 2 } }, { promptLookupMin: 2, promptLookupMax: 2 }],
    [
      { specMethod: 'ngram', specTokens: 3, speculativeConfig: { prompt_lookup_min: 1, prompt_lookup_max: 4 } },
      { promptLookupMin: 1, promptLookupMax: 4 },
    ],
    [{ speculativeConfig: { ...json, model: null, revision: null, prompt_lookup_max: null } }, {}],
    [{ speculativeConfig: { ...json, draft_tensor_parallel_size: 1, rejection_sample_method: 'standard' } }, {}],
  ])('%j', async (given, changes) => {
    expect((await configOf(given)).speculative).toEqual({ ...ngram, ...changes } as never);
  });
});

describe('a draft model', () => {
  test.each<Partial<FlagValues>>([
    { speculativeConfig: { model: 'demo-draft', num_speculative_tokens: 4 } },
    { speculativeConfig: { method: 'draft_model', model: 'demo-draft', num_speculative_tokens: 4 } },
    { specModel: 'demo-draft', specTokens: 4 },
    { specMethod: 'draft_model', speculativeConfig: { model: 'demo-draft' }, specTokens: 4 },
  ])('%j', async (given) => {
    const config = await configOf(given);
    expect(config.speculative).toMatchObject({
      method: 'draft_model',
      numSpeculativeTokens: 4,
      model: 'demo-draft',
      folder: join(ROOT, 'models/demo-draft'),
      hf: { numHiddenLayers: 2 },
      quantization: null,
    });
    expect(structuredClone(config)).toEqual(config);
  });

  test('is looked for as the model is, with its own revision', async () => {
    const asked: [string, ModelFolderOptions][] = [];
    const environment: Partial<ModelEnvironment> = {
      resolveModelFolder: async (model, options) => {
        asked.push([model, options]);
        return join(ROOT, 'models', model.startsWith('org/draft') ? 'demo-draft' : 'demo');
      },
      parseHfConfig,
    };
    const hub = { downloadDir: '/cache', hfToken: 'token' };
    const draft = { num_speculative_tokens: 2, revision: 'r2', quantization: 'int8' };
    for (const loadFormat of ['auto', 'dummy'] as const) {
      const given = { model: 'org/model', revision: 'r1', loadFormat, ...hub };
      const speculativeConfig = { model: 'org/draft', ...draft };
      const config = await new EngineArgs({ ...given, speculativeConfig }).createEngineConfig(environment);
      expect(config.speculative).toMatchObject({ model: 'org/draft', quantization: 'int8' });
      expect(asked.splice(0)).toEqual([
        ['org/model', { ...hub, revision: 'r1', weights: loadFormat === 'auto' }],
        ['org/draft', { ...hub, revision: 'r2', weights: loadFormat === 'auto' }],
      ]);
    }
  });
});

test('there is none by default', async () => {
  const config = await configOf({});
  expect(config.speculative).toBeNull();
  expect(config.scheduler.asyncScheduling).toBe(true);
  expect((await speculation({ method: null })).speculative).toBeNull();
});

test('switches async scheduling off', async () => {
  const json = { method: 'ngram', num_speculative_tokens: 3 };
  expect((await speculation(json)).scheduler.asyncScheduling).toBe(false);
  expect((await speculation(json, { asyncScheduling: false })).scheduler.asyncScheduling).toBe(false);
  expect((await configOf({ asyncScheduling: false })).scheduler.asyncScheduling).toBe(false);
});

describe('a step has room for the drafts of all that run', () => {
  test.each<[Partial<FlagValues>, number, number]>([
    [{ specTokens: 4 }, 128, 2048],
    [{ specTokens: 32 }, 128, 4224],
    [{ specTokens: 4, maxNumSeqs: 1000 }, 1000, 5000],
    [{ specTokens: 4, maxNumBatchedTokens: 64 }, 12, 64],
    [{ specTokens: 4, maxNumBatchedTokens: 64, maxNumSeqs: 12 }, 12, 64],
  ])('%j', async (given, maxNumSeqs, maxNumBatchedTokens) => {
    const { scheduler } = await configOf({ specMethod: 'ngram', ...given });
    expect(scheduler).toMatchObject({ maxNumSeqs, maxNumBatchedTokens });
  });
});

describe('what is wrong is one sentence', () => {
  const ngram = { method: 'ngram', num_speculative_tokens: 3 };
  const draft = { model: 'demo-draft', num_speculative_tokens: 3 };
  const KNOWN = 'method, num_speculative_tokens, prompt_lookup_max, prompt_lookup_min, model, revision, quantization';
  const NOT_HERE = "Bao has no other of vLLM's methods.";
  test.each<[Partial<FlagValues>, 1 | 2, string]>([
    [{ specTokens: 3 }, 2, '--speculative-config needs a method or a model.'],
    [{ specMethod: 'ngram' }, 2, '--speculative-config needs num_speculative_tokens, or --spec-tokens.'],
    [
      { specMethod: 'draft_model', specTokens: 3 },
      2,
      '--speculative-config needs a model for the method draft_model, or --spec-model.',
    ],
    ...['eagle3', 'mtp', 'medusa', 'suffix', 'ngram_gpu', 'mlp_speculator'].map(
      (specMethod): [Partial<FlagValues>, 2, string] => [
        { specMethod, specTokens: 1 },
        2,
        `--speculative-config.method must be ngram or draft_model, not "${specMethod}": ${NOT_HERE}`,
      ],
    ),
    [
      { speculativeConfig: { ...ngram, num_drafts: 3 } },
      2,
      `--speculative-config has no num_drafts; it takes ${KNOWN}.`,
    ],
    [
      { speculativeConfig: { ...draft, tensor_parallel_size: 1 } },
      2,
      `--speculative-config has no tensor_parallel_size; it takes ${KNOWN}.`,
    ],
    [
      { speculativeConfig: { ...draft, draft_tensor_parallel_size: 2 } },
      2,
      '--speculative-config.draft_tensor_parallel_size can only be 1, not 2.',
    ],
    [
      { speculativeConfig: { ...ngram, num_speculative_tokens: 0 } },
      2,
      '--speculative-config.num_speculative_tokens must be a whole number from 1 to 32, not 0.',
    ],
    [
      { specMethod: 'ngram', specTokens: 33 },
      2,
      '--speculative-config.num_speculative_tokens must be a whole number from 1 to 32, not 33.',
    ],
    [
      { speculativeConfig: { ...ngram, prompt_lookup_max: '4' } },
      2,
      '--speculative-config.prompt_lookup_max must be a whole number of at least 1, not "4".',
    ],
    [
      { speculativeConfig: { ...ngram, prompt_lookup_min: 4, prompt_lookup_max: 3 } },
      2,
      '--speculative-config.prompt_lookup_min 4 is more than prompt_lookup_max 3.',
    ],
    [{ speculativeConfig: { ...draft, revision: 1 } }, 2, '--speculative-config.revision must be a text, not 1.'],
    [
      { speculativeConfig: { ...draft, prompt_lookup_max: 3 } },
      2,
      '--speculative-config.prompt_lookup_max means nothing with the method draft_model.',
    ],
    [
      { speculativeConfig: { ...ngram, model: 'demo-draft' } },
      2,
      '--speculative-config.model means nothing with the method ngram.',
    ],
    [
      { speculativeConfig: ngram, specTokens: 4 },
      2,
      '--spec-tokens 4 and --speculative-config.num_speculative_tokens 3 contradict each other.',
    ],
    [
      { speculativeConfig: ngram, asyncScheduling: true },
      2,
      '--async-scheduling and --speculative-config exclude each other: the drafts of a step follow from the tokens of the one before.',
    ],
    [
      { speculativeConfig: ngram, runner: 'pooling' },
      1,
      '--speculative-config is for models that generate, and demo is pooled.',
    ],
    [
      { speculativeConfig: { ...draft, model: golden('llama') } },
      1,
      `The draft model ${golden('llama')} has a vocabulary of 320 tokens, demo one of 2048: a draft model must have the model's own.`,
    ],
    [
      { speculativeConfig: { ...draft, model: golden('bert') } },
      1,
      `The draft model ${golden('bert')} is an encoder, BertModel: it generates nothing.`,
    ],
    [
      { speculativeConfig: ngram, maxNumBatchedTokens: 64, maxNumSeqs: 20 },
      1,
      '--max-num-batched-tokens 64 is less than --max-num-seqs 20 times 4: each running request needs one token of a step, and one for each of its drafts.',
    ],
  ])('%j', async (given, exitCode, message) => {
    const error = await configOf(given).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect(error).toMatchObject({ message, exitCode });
  });

  test('a draft model that is not there is named', async () => {
    expect(speculation({ ...draft, model: './nowhere' })).rejects.toThrow('nowhere: the model folder does not exist.');
  });

  test('before the model is looked for', async () => {
    const environment: Partial<ModelEnvironment> = {
      resolveModelFolder: () => Promise.reject(new Error('looked')),
      parseHfConfig,
    };
    const args = new EngineArgs({ specMethod: 'eagle', specTokens: 1 });
    expect(args.createEngineConfig(environment)).rejects.toThrow('--speculative-config.method');
  });
});
