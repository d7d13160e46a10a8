import { describe, expect, test } from 'bun:test';
import { parseServeArgs } from '../../src/cli/parse-args.ts';
import { UsageError } from '../../src/config/config-error.ts';
import type { FlagValues } from '../../src/config/flags/index.ts';

async function given(...argv: string[]): Promise<Partial<FlagValues>> {
  return (await parseServeArgs(argv)).given;
}

async function refusal(...argv: string[]): Promise<string> {
  const error = await parseServeArgs(argv).then(
    () => null,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(UsageError);
  expect((error as UsageError).exitCode).toBe(2);
  return (error as UsageError).message;
}

describe('the model', () => {
  test('is the argument before, between or behind flags, or --model', async () => {
    expect(await given('org/name', '--port', '1')).toEqual({ model: 'org/name', port: 1 });
    expect(await given('--port', '1', 'org/name', '--seed=2')).toEqual({ model: 'org/name', port: 1, seed: 2 });
    expect(await given('--model', 'demo')).toEqual({ model: 'demo' });
    expect(await given('--api-key', 'a', '--', '-odd-')).toEqual({ apiKey: ['a'], model: '-odd-' });
    expect(await given()).toEqual({});
  });

  test('may be named once only', async () => {
    expect(await refusal('a', 'b')).toBe('Unexpected argument "b": one model is served, "a".');
    expect(await refusal('a', '--model', 'b')).toBe('The model is named twice: "a" and --model "b".');
    expect(await given('a', '--model', 'a')).toEqual({ model: 'a' });
  });
});

describe('values', () => {
  test('stand behind a space or an equals sign; underscores count as dashes', async () => {
    expect(await given('--port', '9000')).toEqual({ port: 9000 });
    expect(await given('--port=9000')).toEqual({ port: 9000 });
    expect(await given('--max_num_seqs=4')).toEqual({ maxNumSeqs: 4 });
    expect(await given('--root-path=/a=b')).toEqual({ rootPath: '/a=b' });
    expect(await given('--root-path=')).toEqual({ rootPath: '' });
  });

  test('have short spellings where vLLM has them', async () => {
    expect(await given('-dp', '2', '-asc=3')).toEqual({ dataParallelSize: 2, apiServerCount: 3 });
    expect(await given('-sc', '{"method":"ngram"}', '-sc.num_speculative_tokens', '3')).toEqual({
      speculativeConfig: { method: 'ngram', num_speculative_tokens: 3 },
    });
    expect(await given('--device-memory-utilization', '0.5')).toEqual({ gpuMemoryUtilization: 0.5 });
  });

  test.each<[string, number]>([
    ['4096', 4096],
    ['4_096', 4096],
    ['32k', 32_000],
    ['32K', 32_768],
    ['25.6k', 25_600],
    ['1m', 1_000_000],
    ['1M', 1_048_576],
    ['auto', -1],
    ['-1', -1],
  ])('--max-model-len %s is %d', async (text, value) => {
    expect(await given('--max-model-len', text)).toEqual({ maxModelLen: value });
  });

  test.each<[string, number]>([
    ['1073741824', 2 ** 30],
    ['4G', 4 * 2 ** 30],
    ['4g', 4e9],
    ['512MiB', 512 * 2 ** 20],
    ['512MB', 512e6],
    ['0.5GiB', 2 ** 29],
  ])('--kv-cache-memory-bytes %s is %d', async (text, value) => {
    expect(await given('--kv-cache-memory-bytes', text)).toEqual({ kvCacheMemoryBytes: value });
  });

  test('of booleans are on, off by --no-, or written', async () => {
    expect(await given('--enable-prefix-caching')).toEqual({ enablePrefixCaching: true });
    expect(await given('--no-enable-prefix-caching')).toEqual({ enablePrefixCaching: false });
    expect(await given('--no_enable_prefix_caching')).toEqual({ enablePrefixCaching: false });
    expect(await given('--enable-prefix-caching=false')).toEqual({ enablePrefixCaching: false });
    expect(await given('--enable-prefix-caching', 'demo')).toEqual({ enablePrefixCaching: true, model: 'demo' });
    expect(await given('--async-scheduling', '--no-async-scheduling')).toEqual({ asyncScheduling: false });
  });

  test('of lists are words, the flag again, or JSON', async () => {
    expect(await given('--api-key', 'a', 'b', '--port', '1')).toEqual({ apiKey: ['a', 'b'], port: 1 });
    expect(await given('--api-key', 'a', '--api-key=b')).toEqual({ apiKey: ['a', 'b'] });
    expect(await given('--allowed-origins', '["http://a", "http://b"]')).toEqual({
      allowedOrigins: ['http://a', 'http://b'],
    });
    expect(await given('--disable-access-log-for-endpoints', '/health, /metrics,')).toEqual({
      disableAccessLogForEndpoints: ['/health', '/metrics'],
    });
  });

  test('of JSON flags are an object or dotted members, merged in the order given', async () => {
    expect(await given('--override-generation-config', '{"temperature":0}')).toEqual({
      overrideGenerationConfig: { temperature: 0 },
    });
    expect(
      await given('--override-generation-config.temperature', '0', '--override-generation-config.top_p=0.5'),
    ).toEqual({
      overrideGenerationConfig: { temperature: 0, top_p: 0.5 },
    });
    expect(
      await given('--hf-overrides', '{"rope_scaling":{"type":"yarn"}}', '--hf-overrides.rope_scaling.factor', '2'),
    ).toEqual({ hfOverrides: { rope_scaling: { type: 'yarn', factor: 2 } } });
    expect(await given('--hf-overrides.model_type', 'qwen3', '--hf-overrides.tie', 'true')).toEqual({
      hfOverrides: { model_type: 'qwen3', tie: true },
    });
    expect(await given('--hf-overrides.architectures+', 'A', '--hf-overrides.architectures+', '["B","C"]')).toEqual({
      hfOverrides: { architectures: ['A', 'B', 'C'] },
    });
  });

  test('can’t reach a prototype', async () => {
    const { hfOverrides } = await given('--hf-overrides.__proto__.polluted', '1');
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    expect(Object.keys(hfOverrides!)).toEqual(['__proto__']);
  });
});

test('--config and --help are not flags of the configuration', async () => {
  expect(await parseServeArgs(['--config', 'a.yaml'])).toEqual({ given: {}, configFile: 'a.yaml', help: null });
  expect((await parseServeArgs(['-h'])).help).toBe('');
  expect((await parseServeArgs(['--help'])).help).toBe('');
  expect((await parseServeArgs(['demo', '--help=max-model-len'])).help).toBe('max-model-len');
});

describe('errors name the flag, the value and what would be right', () => {
  test.each<[string[], string]>([
    [['--port', 'x'], '--port takes a whole number from 0 to 65535, not "x".'],
    [['--port', '65536'], '--port takes a whole number from 0 to 65535, not "65536".'],
    [['--port=-1'], '--port takes a whole number from 0 to 65535, not "-1".'],
    [['--port', '1.5'], '--port takes a whole number from 0 to 65535, not "1.5".'],
    [['--port'], '--port needs a value: a whole number from 0 to 65535.'],
    [['--port', '--seed', '1'], '--port needs a value: a whole number from 0 to 65535.'],
    [['--request-timeout', '9999999'], '--request-timeout takes a number from 0.001 to 2073600, not "9999999".'],
    [['--request-body-timeout', '1e9'], '--request-body-timeout takes a number from 0.001 to 2073600, not "1e9".'],
    [['--shutdown-timeout', '9999999'], '--shutdown-timeout takes a whole number from 0 to 2073600, not "9999999".'],
    [['--sse-keep-alive-interval', '1e9'], '--sse-keep-alive-interval takes a number from 0 to 2073600, not "1e9".'],
    [['--max-num-seqs', '0'], '--max-num-seqs takes a whole number from 1 to 1048576, not "0".'],
    [['--max-num-seqs', '4294967296'], '--max-num-seqs takes a whole number from 1 to 1048576, not "4294967296".'],
    [['--max-loras', '0'], '--max-loras takes a whole number of at least 1, not "0".'],
    [
      ['--max-model-len', 'long'],
      '--max-model-len takes a whole number (4096, 32k, 1M) or auto of at least -1, not "long".',
    ],
    [
      ['--kv-cache-memory-bytes', '4X'],
      '--kv-cache-memory-bytes takes a size (1073741824, 4G, 512MiB) of at least 1, not "4X".',
    ],
    [['--gpu-memory-utilization', 'Infinity'], '--gpu-memory-utilization takes a number, not "Infinity".'],
    [['--scheduling-policy', 'lifo'], '--scheduling-policy takes fcfs or priority, not "lifo".'],
    [['--async-scheduling=maybe'], '--async-scheduling takes true or false, not "maybe".'],
    [['--hf-overrides', '[1]'], '--hf-overrides takes a JSON object, not "[1]".'],
    [['--hf-overrides.', '1'], '--hf-overrides. names an empty member.'],
    [['--port.x', '1'], '--port.x: --port has no members; it takes a whole number from 0 to 65535.'],
    [['--no-port'], '--no-port does not exist: --port takes a whole number from 0 to 65535.'],
    [['--no-async-scheduling=1'], '--no-async-scheduling takes no value.'],
    [['--api-key'], '--api-key needs a value: one or more words.'],
    [['--config'], '--config needs a value: a YAML file.'],
    [['--hf-overrides.a', '1', '--hf-overrides.a+', '2'], '--hf-overrides.a+ appends to a list, but a is none.'],
  ])('%j', async (argv, message) => {
    expect(await refusal(...argv)).toBe(message);
  });

  test('an unknown flag comes with the nearest names', async () => {
    expect(await refusal('--max-num-seq', '1')).toBe('Unknown option --max-num-seq: did you mean --max-num-seqs?');
    expect(await refusal('--no-enable-prefix-cache')).toContain('Unknown option --no-enable-prefix-cache');
    expect(await refusal('--hepl')).toContain('did you mean --help');
    expect(await refusal('-ep')).toStartWith("vLLM's --enable-expert-parallel is not supported by Bao: ");
    expect(await refusal('--xyzzy')).toBe('Unknown option --xyzzy: --help lists all.');
    expect(await refusal('-z')).toContain('Unknown option');
  });

  test('a flag of vLLM’s that Bao lacks says why', async () => {
    expect(await refusal('--enable_expert_parallel')).toBe(
      "vLLM's --enable-expert-parallel is not supported by Bao: a model runs on one device; use --data-parallel-size for several engine cores.",
    );
    expect(await refusal('--code-revision', 'main')).toContain('no code of a model repository is ever run');
  });
});
