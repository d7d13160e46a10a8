import { afterAll, describe, expect, test } from 'bun:test';
import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { configWarnings } from '../../src/config/checks.ts';
import { ConfigError } from '../../src/config/config-error.ts';
import { EngineArgs, type ModelEnvironment, type ModelFolderOptions } from '../../src/config/engine-args.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';
import { parseHfConfig } from '../../src/models/parse-hf-config.ts';

const ROOT = resolve(import.meta.dir, '../..');
const golden = (name: string) => join(ROOT, 'test/goldens', name);
const folder = mkdtempSync(join(tmpdir(), 'bao-engine-args-'));
afterAll(() => rmSync(folder, { recursive: true }));

function configOf(given: Partial<FlagValues> = {}) {
  return new EngineArgs(given).createEngineConfig();
}

async function refusal(given: Partial<FlagValues>): Promise<ConfigError> {
  const error = await configOf(given).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ConfigError);
  return error as ConfigError;
}

/** A copy of the demo's configuration with other generation defaults. */
function modelWith(name: string, generationConfig: unknown): string {
  const path = join(folder, name);
  cpSync(join(ROOT, 'models/demo/config.json'), join(path, 'config.json'));
  if (generationConfig !== undefined)
    writeFileSync(join(path, 'generation_config.json'), JSON.stringify(generationConfig));
  return path;
}

describe('the demo model', () => {
  test('is the default, resolved', async () => {
    const { model, scheduler, cache } = await configOf();
    expect(model).toMatchObject({
      model: 'demo',
      servedModelName: ['demo'],
      folder: join(ROOT, 'models/demo'),
      tokenizerFolder: join(ROOT, 'models/demo'),
      dtype: 'bfloat16',
      maxModelLen: 4096,
      maxModelLenAuto: false,
      eosTokenIds: [2039, 2041],
      defaultSamplingParams: { temperature: 0.6, top_p: 0.95, top_k: 20 },
    });
    expect(model.hf.architectures).toEqual(['Qwen3ForCausalLM']);
    expect(scheduler).toMatchObject({ maxNumSeqs: 128, maxNumBatchedTokens: 2048, enableChunkedPrefill: true });
    expect(cache).toMatchObject({ kvCacheDtype: 'bfloat16', kvCacheMemoryBytes: null, enablePrefixCaching: true });
  });

  test('gives a configuration that survives structuredClone and holds no token', async () => {
    const config = await configOf({ hfToken: 'hf-secret' });
    expect(structuredClone(config)).toEqual(config);
    expect(JSON.stringify(config)).not.toContain('hf-secret');
  });
});

describe('the model', () => {
  test('and its tokenizer are looked for with their own revisions', async () => {
    const asked: [string, ModelFolderOptions][] = [];
    const environment: Partial<ModelEnvironment> = {
      resolveModelFolder: async (model, options) => {
        asked.push([model, options]);
        return join(ROOT, 'models/demo');
      },
      parseHfConfig,
    };
    const hub = { downloadDir: '/cache', hfToken: 'token' };
    await new EngineArgs({
      model: 'org/model',
      revision: 'r1',
      tokenizer: 'org/tokenizer',
      tokenizerRevision: 'r2',
      loadFormat: 'dummy',
      ...hub,
    }).createEngineConfig(environment);
    expect(asked).toEqual([
      ['org/model', { ...hub, revision: 'r1', weights: false }],
      ['org/tokenizer', { ...hub, revision: 'r2', weights: false }],
    ]);
  });

  test('without a tokenizer has no tokenizer folder', async () => {
    const { model } = await configOf({ model: golden('llama'), skipTokenizerInit: true });
    expect(model).toMatchObject({ tokenizerFolder: null, servedModelName: [golden('llama')] });
  });

  test('is served under the names given', async () => {
    expect((await configOf({ servedModelName: ['a', 'b'] })).model.servedModelName).toEqual(['a', 'b']);
  });

  test('that is not there, or is no model, is named', async () => {
    expect((await refusal({ model: './nowhere' })).message).toContain('nowhere');
    expect(await refusal({ model: folder })).toMatchObject({
      message: `${folder} is no model folder: it has no config.json.`,
      exitCode: 1,
    });
    const broken = join(folder, 'broken');
    cpSync(join(ROOT, 'models/demo/config.json'), join(broken, 'config.json'));
    writeFileSync(join(broken, 'config.json'), '{"a": ');
    expect((await refusal({ model: broken })).message).toContain("broken/config.json can't be read as JSON");
  });

  test('takes --hf-overrides, merged, and refuses what makes no sense', async () => {
    const { model } = await configOf({
      model: golden('yarn'),
      skipTokenizerInit: true,
      hfOverrides: { rope_scaling: { factor: 2 }, eos_token_id: 7 },
    });
    expect(model.hf.rope).toMatchObject({ ropeType: 'yarn', factor: 2, originalMaxPositionEmbeddings: 64 });
    expect(model.eosTokenIds).toEqual([7]);
    expect((await refusal({ hfOverrides: { hidden_size: -1 } })).message).toContain('hidden_size');
  });
});

describe('adapters', () => {
  test('are numbered, with the folders of their paths', async () => {
    const { lora } = await configOf({
      enableLora: true,
      servedModelName: ['base', 'alias'],
      loraModules: [
        'pirate=demo-pirate',
        `{"name": "two", "path": "${join(ROOT, 'models/demo-pirate')}", "base_model_name": "alias"}`,
      ],
      maxLoras: 2,
    });
    const path = join(ROOT, 'models/demo-pirate');
    expect(lora).toEqual({
      enableLora: true,
      allowRuntimeLoraUpdating: false,
      maxLoras: 2,
      maxCpuLoras: 2,
      maxLoraRank: 16,
      maxLoraClsLabels: null,
      loraDtype: 'bfloat16',
      modules: [
        { id: 1, name: 'pirate', root: 'demo-pirate', path, baseModelName: null },
        { id: 2, name: 'two', root: path, path, baseModelName: 'alias' },
      ],
    });
  });

  test('have the type of the model unless told otherwise', async () => {
    expect((await configOf({ dtype: 'float32' })).lora.loraDtype).toBe('float32');
    expect((await configOf({ dtype: 'float32', loraDtype: 'float16' })).lora.loraDtype).toBe('float16');
  });

  test.each<[Partial<FlagValues>, 1 | 2, string]>([
    [{ enableLora: false, loraModules: ['a=b'] }, 2, '--lora-modules needs --enable-lora.'],
    [
      { maxLoras: 3, maxCpuLoras: 2 },
      2,
      '--max-cpu-loras 2 is less than --max-loras 3: those of one step are all in memory.',
    ],
    [{ maxLoraRank: 12 }, 2, '--max-lora-rank must be one of 1, 8, 16, 32, 64, 128, 256, 320, 512, not 12.'],
    [{ loraModules: ['a'] }, 2, 'no JSON in a; it takes name=path'],
    [{ loraModules: ['{"name": "a"}'] }, 2, 'no path in {"name": "a"}'],
    [{ loraModules: ['{"name": "a", "path": "demo-pirate", "rank": 8}'] }, 2, 'the unknown member rank in'],
    [{ loraModules: ['demo=demo-pirate'] }, 2, '--lora-modules: the name demo is taken already.'],
    [{ loraModules: ['a=demo-pirate', 'a=demo-pirate'] }, 2, '--lora-modules: the name a is taken already.'],
    [
      { loraModules: ['{"name": "a", "path": "demo-pirate", "base_model_name": "b"}'] },
      2,
      '--lora-modules: base_model_name b of a is not served; demo is.',
    ],
    [{ loraModules: ['a=./nowhere'] }, 1, 'nowhere'],
  ])('%j', async (given, exitCode, message) => {
    const error = await refusal({ enableLora: true, ...given });
    expect(error.message).toContain(message);
    expect(error.exitCode).toBe(exitCode);
  });
});

describe('dtype', () => {
  test.each<[FlagValues['dtype'], string, string]>([
    ['auto', 'float32', 'bfloat16'],
    ['auto', 'bfloat16', 'bfloat16'],
    ['auto', 'float16', 'float16'],
    ['half', 'bfloat16', 'float16'],
    ['float', 'bfloat16', 'float32'],
    ['float32', 'float16', 'float32'],
  ])('%s of a %s checkpoint is %s, and so is the KV cache', async (dtype, torchDtype, resolved) => {
    const config = await configOf({ dtype, hfOverrides: { torch_dtype: torchDtype } });
    expect(config.model.dtype as string).toBe(resolved);
    expect(config.cache.kvCacheDtype as string).toBe(resolved);
  });

  test('of the KV cache may be another', async () => {
    expect((await configOf({ kvCacheDtype: 'float32' })).cache.kvCacheDtype).toBe('float32');
    expect((await configOf({ kvCacheDtype: 'fp8' })).cache.kvCacheDtype).toBe('fp8_e4m3');
  });
});

describe('max_model_len', () => {
  test('is what config.json allows, by vLLM’s rule for scaled rope', async () => {
    const of = async (given: Partial<FlagValues>) => (await configOf(given)).model.maxModelLen;
    expect(await of({})).toBe(4096);
    expect(await of({ model: golden('yarn'), skipTokenizerInit: true })).toBe(256);
    expect(await of({ hfOverrides: { rope_scaling: { rope_type: 'linear', factor: 2 } } })).toBe(8192);
    expect(
      await of({
        hfOverrides: {
          rope_scaling: {
            rope_type: 'llama3',
            factor: 8,
            low_freq_factor: 1,
            high_freq_factor: 4,
            original_max_position_embeddings: 1024,
          },
        },
      }),
    ).toBe(4096);
  });

  test('may be less, and auto leaves it to the KV cache', async () => {
    expect((await configOf({ maxModelLen: 100 })).model).toMatchObject({ maxModelLen: 100, maxModelLenAuto: false });
    expect((await configOf({ maxModelLen: -1 })).model).toMatchObject({ maxModelLen: 4096, maxModelLenAuto: true });
  });
});

describe('default sampling parameters', () => {
  test('come from the model, from nowhere, or from another folder', async () => {
    const model = modelWith('greedy', { max_new_tokens: 9, do_sample: true, top_k: null, eos_token_id: 3 });
    expect((await configOf({ model, skipTokenizerInit: true })).model).toMatchObject({
      defaultSamplingParams: { max_tokens: 9 },
      maxTokensLimit: null,
      eosTokenIds: [3, 2041],
    });
    expect((await configOf({ generationConfig: 'vllm' })).model).toMatchObject({
      defaultSamplingParams: {},
      eosTokenIds: [2039, 2041],
    });
    expect((await configOf({ generationConfig: model })).model).toMatchObject({
      defaultSamplingParams: { max_tokens: 9 },
      maxTokensLimit: 9,
    });
    const plain = modelWith('plain', undefined);
    expect((await configOf({ model: plain, skipTokenizerInit: true })).model.defaultSamplingParams).toEqual({});
  });

  test('are overridden by the operator', async () => {
    const overrideGenerationConfig = { temperature: 0, max_tokens: 5 };
    const { model } = await configOf({ overrideGenerationConfig });
    expect(model.defaultSamplingParams).toEqual({ temperature: 0, top_p: 0.95, top_k: 20, max_tokens: 5 });
    expect(model.maxTokensLimit).toBe(5);
    expect(
      (await configOf({ generationConfig: 'vllm', overrideGenerationConfig })).model.defaultSamplingParams,
    ).toEqual({ temperature: 0, max_tokens: 5 });
  });

  test.each([
    [{ temperature: 2.5 }, 'temperature must be a number in [0, 2], not 2.5.'],
    [{ temperature: -1 }, 'temperature must be a number in [0, 2], not -1.'],
    [{ top_p: 0 }, 'top_p must be a number in (0, 1], not 0.'],
    [{ top_k: -2 }, 'top_k must be a whole number of at least -1, not -2.'],
    [{ top_k: 1.5 }, 'top_k must be a whole number of at least -1, not 1.5.'],
    [{ min_p: 1.1 }, 'min_p must be a number in [0, 1], not 1.1.'],
    [{ repetition_penalty: 0 }, 'repetition_penalty must be a number above 0, not 0.'],
    [{ max_tokens: 0 }, 'max_new_tokens must be a whole number of at least 1, not 0.'],
  ])('with which every request would be refused are refused at the start: %j', async (defaults, message) => {
    expect((await refusal({ overrideGenerationConfig: defaults })).message).toBe(
      `--override-generation-config: ${message}`,
    );
  });

  test('that are wrong are named', async () => {
    expect((await refusal({ overrideGenerationConfig: { temprature: 0 } })).message).toBe(
      '--override-generation-config has no "temprature"; it sets temperature, top_p, top_k, min_p, repetition_penalty, max_new_tokens.',
    );
    expect((await refusal({ overrideGenerationConfig: { top_p: 'x' } })).message).toBe(
      '--override-generation-config: top_p must be a number in (0, 1], not "x".',
    );
    expect((await refusal({ generationConfig: '/nowhere' })).message).toBe(
      '--generation-config: /nowhere/generation_config.json does not exist.',
    );
    const model = modelWith('bad-eos', { eos_token_id: ['x'] });
    expect((await refusal({ model })).message).toContain('eos_token_id must be one or more token ids, not ["x"]');
  });
});

describe('the step’s limits', () => {
  test.each<[Partial<FlagValues>, number, number]>([
    [{}, 128, 2048],
    [{ maxNumBatchedTokens: 64 }, 64, 64],
    [{ maxNumSeqs: 4096 }, 4096, 4096],
    [{ maxNumSeqs: 2, maxModelLen: 10 }, 2, 20],
    [{ enableChunkedPrefill: false }, 128, 4096],
    [{ enableChunkedPrefill: false, maxModelLen: 1000 }, 128, 2048],
  ])('%j', async (given, maxNumSeqs, maxNumBatchedTokens) => {
    expect((await configOf(given)).scheduler).toMatchObject({ maxNumSeqs, maxNumBatchedTokens });
  });
});

describe('--chat-template', () => {
  test('is text or a file', async () => {
    const path = join(folder, 'template.jinja');
    writeFileSync(path, '{{ messages[0].content }}');
    expect((await configOf({ chatTemplate: path })).frontend.chatTemplate).toBe('{{ messages[0].content }}');
    expect((await configOf({ chatTemplate: '{{ x }}' })).frontend.chatTemplate).toBe('{{ x }}');
    expect((await refusal({ chatTemplate: 'gone.jinja' })).message).toBe(
      '--chat-template: gone.jinja is neither a file nor Jinja text.',
    );
    expect((await refusal({ chatTemplate: folder })).message).toStartWith(`--chat-template: ${folder} can't be read`);
  });
});

describe('what does not go together is one sentence', () => {
  const keyfile = join(ROOT, 'package.json');
  test.each<[Partial<FlagValues>, 1 | 2, string]>([
    [
      { tensorParallelSize: 2 },
      2,
      '--tensor-parallel-size must be 1, not 2: a model runs on one device; use --data-parallel-size for several engine cores.',
    ],
    [
      { pipelineParallelSize: 4 },
      2,
      '--pipeline-parallel-size must be 1, not 4: a model runs on one device; use --data-parallel-size for several engine cores.',
    ],
    [{ uds: '' }, 2, '--uds must not be empty.'],
    [{ gpuMemoryUtilization: 0 }, 2, '--gpu-memory-utilization must be above 0 and at most 1, not 0.'],
    [{ gpuMemoryUtilization: 1.01 }, 2, '--gpu-memory-utilization must be above 0 and at most 1, not 1.01.'],
    [{ watermark: 1 }, 2, '--watermark must be at least 0 and below 1, not 1.'],
    [{ blockSize: 24 }, 2, '--block-size must be one of 8, 16, 32, 64, 128, not 24.'],
    [
      { cpuThreads: 1, dataParallelSize: 2 },
      2,
      '--cpu-threads 1 is less than --data-parallel-size 2: each engine core needs a thread.',
    ],
    [
      { uds: '/a', host: '::' },
      2,
      '--uds and --host exclude each other: the server listens on a socket file or on an address.',
    ],
    [
      { uds: '/a', apiServerCount: 2 },
      2,
      '--uds needs --api-server-count 1: a socket file is listened on by one thread.',
    ],
    [
      { allowedOrigins: ['https://a.example', 'https://b.example/'] },
      2,
      '--allowed-origins takes *, or origins as browsers send them, such as https://example.com:8080, without a path or a slash at the end, not "https://b.example/".',
    ],
    [
      { disableAccessLogForEndpoints: ['/metrics', 'health'] },
      2,
      '--disable-access-log-for-endpoints takes paths such as /health, not "health".',
    ],
    [
      { otlpTracesEndpoint: 'grpc://localhost:4317' },
      2,
      '--otlp-traces-endpoint must be the http:// or https:// URL of a collector for protobuf over HTTP (not gRPC), such as http://localhost:4318/v1/traces, not "grpc://localhost:4317".',
    ],
    [{ uds: 'a'.repeat(108) }, 2, '--uds: the path is longer than the 107 bytes that a socket may have.'],
    [{ rootPath: 'llm' }, 2, '--root-path must begin with a slash ("/llm"), not "llm".'],
    [{ sslKeyfile: keyfile }, 2, '--ssl-keyfile needs --ssl-certfile.'],
    [{ sslCertfile: keyfile }, 2, '--ssl-certfile needs --ssl-keyfile.'],
    [{ sslCaCerts: keyfile }, 2, '--ssl-ca-certs needs --ssl-keyfile and --ssl-certfile.'],
    [
      { sslKeyfile: keyfile, sslCertfile: keyfile, sslCertReqs: 2 },
      2,
      "--ssl-cert-reqs 2 needs --ssl-ca-certs, to check the clients' certificates against.",
    ],
    [{ sslKeyfile: '/no.pem', sslCertfile: keyfile }, 1, '--ssl-keyfile: /no.pem does not exist.'],
    [{ fingerprintMode: 'custom' }, 2, '--fingerprint-mode custom needs --fingerprint-value.'],
    [{ fingerprintValue: 'x' }, 2, '--fingerprint-value needs --fingerprint-mode custom, not full.'],
    [{ apiKey: ['a', ''] }, 2, '--api-key must not be empty.'],
    [{ servedModelName: [''] }, 2, '--served-model-name must not be empty.'],
    [{ tokenizer: 'a', skipTokenizerInit: true }, 2, '--tokenizer and --skip-tokenizer-init exclude each other.'],
    [{ maxModelLen: 0 }, 1, '--max-model-len must be at least 1, or auto.'],
    [
      { maxModelLen: 4097 },
      1,
      "--max-model-len 4097 is more than the 4096 tokens that the model's config.json allows (max_position_embeddings 4096, rope default).",
    ],
    [
      { enableChunkedPrefill: false, maxNumBatchedTokens: 1024 },
      1,
      '--max-num-batched-tokens 1024 is less than --max-model-len 4096: without chunked prefill a step must hold the longest prompt.',
    ],
    [
      { maxNumBatchedTokens: 64, maxNumSeqs: 65 },
      1,
      '--max-num-batched-tokens 64 is less than --max-num-seqs 65: each running request needs one token of a step.',
    ],
    [
      { longPrefillTokenThreshold: 4097 },
      1,
      '--long-prefill-token-threshold 4097 is more than --max-model-len 4096, so that it would never count.',
    ],
  ])('%j', async (given, exitCode, message) => {
    expect(await refusal(given)).toMatchObject({ message, exitCode });
  });

  test('is found before the model is looked for', async () => {
    const environment: Partial<ModelEnvironment> = {
      resolveModelFolder: () => Promise.reject(new Error('looked')),
      parseHfConfig,
    };
    expect(new EngineArgs({ blockSize: 1 }).createEngineConfig(environment)).rejects.toThrow('--block-size');
  });
});

describe('the parallel size is held against the devices', () => {
  const sized = (given: Partial<FlagValues>) =>
    new EngineArgs({ model: 'demo', ...given }).createEngineConfig({
      cpuCores: () => 2,
      gpuFacts: async () => ({ numDevices: 4, memoryBytes: 2 ** 34, computeCapability: '90' }),
    });

  test.each<[Partial<FlagValues>, string]>([
    [
      { dataParallelSize: 3 },
      '--data-parallel-size 3 is more than the CPU cores there are, 2; with --cpu-threads 3 the engine cores share them.',
    ],
    [
      { device: 'cuda', dataParallelSize: 5, maxNumSeqs: 8, maxNumBatchedTokens: 64 },
      '--data-parallel-size 5 is more than the CUDA devices there are, 4: each engine core has one of its own.',
    ],
  ])('%j', async (given, message) => {
    const refused = sized(given);
    expect(refused).rejects.toThrow(message);
    expect(refused).rejects.toBeInstanceOf(ConfigError);
    // Before the model is looked for.
    expect(sized({ ...given, model: '/no/such/folder' })).rejects.toThrow(message);
  });

  test.each<Partial<FlagValues>>([
    { dataParallelSize: 2 },
    { dataParallelSize: 3, cpuThreads: 3 },
    { device: 'cuda', dataParallelSize: 4 },
  ])('%j', async (given) => {
    expect((await sized(given)).parallel.dataParallelSize).toBe(given.dataParallelSize!);
  });
});

test('what is likely not meant is warned of', async () => {
  const config = await configOf({ dataParallelSize: 3, cpuThreads: 5, apiServerCount: 4 });
  expect(configWarnings(config, 2)).toEqual([
    '--data-parallel-size 3 is more than the 2 CPU cores there are: engine cores will wait for each other.',
    '--cpu-threads 5 is more than the 2 CPU cores there are: threads will wait for each other.',
    '--api-server-count 4 is more than the 2 CPU cores there are.',
  ]);
  expect(configWarnings(config, 8)).toEqual([]);
});
