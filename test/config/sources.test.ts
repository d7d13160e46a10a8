import { afterAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseServeArgs } from '../../src/cli/parse-args.ts';
import { UsageError } from '../../src/config/config-error.ts';
import { readConfigFile } from '../../src/config/config-file.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { readEnvironment } from '../../src/config/environment.ts';
import { describeNonDefaultArgs } from '../../src/config/non-default-args.ts';

const folder = mkdtempSync(join(tmpdir(), 'bao-config-'));
afterAll(() => rmSync(folder, { recursive: true }));

function yaml(text: string): string {
  const path = join(folder, 'server.yaml');
  writeFileSync(path, text);
  return path;
}

describe('a --config file', () => {
  test('maps flag names, with dashes or underscores, to values of every type', async () => {
    const path = yaml(`
model: org/name
max-num-seqs: 4
max_model_len: 32k
gpu-memory-utilization: 0.5
enable-prefix-caching: false
api-key: [a, b]
plugin: ./one.ts
disable-access-log-for-endpoints: /health,/metrics
hf-overrides:
  rope_scaling: { factor: 2 }
override-generation-config: '{"temperature": 0}'
revision: 2024
chat-template: null
kv-cache-memory-bytes: 1GiB
`);
    expect(await readConfigFile(path)).toEqual({
      model: 'org/name',
      maxNumSeqs: 4,
      maxModelLen: 32_000,
      gpuMemoryUtilization: 0.5,
      enablePrefixCaching: false,
      apiKey: ['a', 'b'],
      plugin: ['./one.ts'],
      disableAccessLogForEndpoints: ['/health', '/metrics'],
      hfOverrides: { rope_scaling: { factor: 2 } },
      overrideGenerationConfig: { temperature: 0 },
      revision: '2024',
      chatTemplate: null,
      kvCacheMemoryBytes: 2 ** 30,
    });
  });

  test('negates booleans and names members of JSON flags alone, as the command line does', async () => {
    const path = yaml(`
no-async-scheduling: true
no_enable_prefix_caching: false
hf-overrides.rope_theta: 5000
hf-overrides.rope_scaling.factor: 2
hf-overrides: { rope_scaling: { rope_type: linear } }
hf_overrides.architectures+: LlamaForCausalLM
`);
    expect(await readConfigFile(path)).toEqual({
      asyncScheduling: false,
      enablePrefixCaching: true,
      hfOverrides: {
        rope_theta: 5000,
        rope_scaling: { factor: 2, rope_type: 'linear' },
        architectures: ['LlamaForCausalLM'],
      },
    });
  });

  test('may be empty', async () => {
    expect(await readConfigFile(yaml('# nothing yet\n'))).toEqual({});
  });

  test.each<[string, string]>([
    ['port: high', 'port in FILE takes a whole number from 0 to 65535, not "high".'],
    ['port: null', 'port in FILE takes a whole number from 0 to 65535, not null.'],
    ['port: [1]', 'port in FILE takes a whole number from 0 to 65535, not [1].'],
    ['max-num-seq: 1', 'Unknown option --max-num-seq (in FILE): did you mean --max-num-seqs?'],
    ['cpu-offload-gb: 4', "vLLM's --cpu-offload-gb is not supported by Bao (in FILE):"],
    ['config: other.yaml', "config in FILE: a file can't name another one."],
    ['no-port: true', 'Unknown option --no-port (in FILE): --help lists all.'],
    ['port.a: 1', 'port.a in FILE: port has no members; it takes a whole number from 0 to 65535.'],
    ['hf-overrides.: 1', 'hf-overrides. in FILE names an empty member.'],
    ['enable-expert-parallel: true', "vLLM's --enable-expert-parallel is not supported by Bao (in FILE):"],
    ['- a', '--config: FILE must map flag names to values.'],
    ['a: [', '--config: FILE is no YAML:'],
  ])('%s is refused', async (text, message) => {
    const path = yaml(text);
    const error = await readConfigFile(path).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(UsageError);
    expect((error as Error).message).toStartWith(message.replace('FILE', path));
  });

  test('that is absent is named', () => {
    expect(readConfigFile(join(folder, 'none.yaml'))).rejects.toThrow(/^--config: .*none\.yaml can't be read/);
  });
});

describe('the environment', () => {
  test('sets the flags that name a variable', () => {
    expect(
      readEnvironment({
        BAO_PORT: '9000',
        BAO_HOST: '127.0.0.1',
        BAO_API_KEY: 'k',
        BAO_CPU_THREADS: '2',
        BAO_LOG_LEVEL: 'DEBUG',
        BAO_LOG_FORMAT: '',
        PATH: '/bin',
      }),
    ).toEqual({ port: 9000, host: '127.0.0.1', apiKey: ['k'], cpuThreads: 2, logLevel: 'debug' });
  });

  test('counts the KV cache in GiB, unless a unit is there', () => {
    expect(readEnvironment({ BAO_CPU_KVCACHE_SPACE: '4' })).toEqual({ kvCacheMemoryBytes: 4 * 2 ** 30 });
    expect(readEnvironment({ BAO_CPU_KVCACHE_SPACE: '0.5' })).toEqual({ kvCacheMemoryBytes: 2 ** 29 });
    expect(readEnvironment({ BAO_CPU_KVCACHE_SPACE: '512MiB' })).toEqual({ kvCacheMemoryBytes: 2 ** 29 });
    expect(() => readEnvironment({ BAO_CPU_KVCACHE_SPACE: '0' })).toThrow('BAO_CPU_KVCACHE_SPACE takes a size');
  });

  test('names the variable in errors', () => {
    expect(() => readEnvironment({ BAO_PORT: 'x' })).toThrow('BAO_PORT takes a whole number from 0 to 65535, not "x".');
  });
});

test('the command line goes before the environment, that before the file, that before defaults', async () => {
  const path = yaml('port: 1\nhost: file\nseed: 5\n');
  const args = await parseServeArgs(['--port', '3', '--config', path]);
  const { values } = await EngineArgs.fromCliArgs(args, { BAO_PORT: '2', BAO_HOST: 'env' });
  expect({ port: values.port, host: values.host, seed: values.seed, maxLogprobs: values.maxLogprobs }).toEqual({
    port: 3,
    host: 'env',
    seed: 5,
    maxLogprobs: 20,
  });
});

test('the log at start shows what is not at its default, without secrets', () => {
  const { values } = new EngineArgs({
    apiKey: ['sk-1'],
    hfToken: 'hf-1',
    port: 1,
    plugin: ['a', 'b'],
    seed: 0,
    hfOverrides: { a: 1 },
  });
  expect(describeNonDefaultArgs(values).split('\n')).toEqual([
    '  --hf-token ***',
    '  --hf-overrides {"a":1}',
    '  --port 1',
    '  --api-key ***',
    '  --plugin a b',
  ]);
  expect(describeNonDefaultArgs(new EngineArgs().values)).toBe('');
});
