import { describe, expect, test } from 'bun:test';
import { commandHelp, parseCommand } from '../../bench/command.ts';
import { COMMANDS } from '../../bench/commands/index.ts';
import { latency } from '../../bench/commands/latency.ts';
import { parseGoodput, parseRate, serve } from '../../bench/commands/serve.ts';
import { serveArguments, skipMissingTokenizer } from '../../bench/commands/startup.ts';

const words = (line: string) => line.split(' ');

async function parse(command: Parameters<typeof parseCommand>[0], line: string) {
  const parsed = await parseCommand(command, words(line), {});
  if (parsed.help) throw new Error('help was not asked for');
  return parsed;
}

describe('flags', () => {
  test("a command's own and the engine's stand side by side", async () => {
    const { values, engine } = await parse(
      latency,
      '--model bench/shapes/0.5b --load-format dummy --batch-size 16 --input-len 1k --max-num-seqs 4',
    );
    expect(values as unknown).toEqual({
      batchSize: 16,
      inputLen: 1000,
      outputLen: 128,
      numIters: 30,
      numItersWarmup: 10,
      outputJson: null,
    });
    expect(engine).toEqual({ logLevel: 'warning', model: 'bench/shapes/0.5b', loadFormat: 'dummy', maxNumSeqs: 4 });
  });

  test("the load generator's host and port are not the server's", async () => {
    const { values, engine } = await parse(serve, '--port 9000 --percentile-metrics ttft,itl --random_input_len 8');
    expect(values).toMatchObject({ port: 9000, percentileMetrics: ['ttft', 'itl'], randomInputLen: 8, seed: 0 });
    expect(engine).toEqual({ logLevel: 'warning' });
  });

  test("a command's own flags have variables behind them", async () => {
    const key = async (line: string[]) => {
      const parsed = await parseCommand(serve, line, { OPENAI_API_KEY: 'from the environment' });
      return parsed.help ? null : parsed.values.apiKey;
    };
    expect(await key([])).toBe('from the environment');
    expect(await key(['--api-key', 'given'])).toBe('given');
  });

  test.each([
    ['--batch-sice 4', /Unknown option --batch-sice: did you mean --batch-size/],
    ['--batch-size 0', /--batch-size takes a whole number of at least 1, not "0"/],
    ['extra', /Unexpected argument "extra"/],
  ])('%p is refused', async (line, message) => {
    await expect(parseCommand(latency, words(line), {})).rejects.toThrow(message);
  });

  test('every command has its help', async () => {
    for (const [name, { load }] of Object.entries(COMMANDS)) {
      const command = await load();
      expect(command.name).toBe(name);
      expect(await parseCommand(command, ['--help'], {})).toEqual({ help: true });
      for (const flag of Object.keys(command.flags)) expect(commandHelp(command, 100)).toContain(flag);
    }
  });
});

describe('texts of the load generator', () => {
  test('rate', () => {
    expect(parseRate('inf')).toBe(Number.POSITIVE_INFINITY);
    expect(parseRate('2.5')).toBe(2.5);
    for (const wrong of ['0', '-1', 'fast']) expect(() => parseRate(wrong)).toThrow(/--request-rate takes/);
  });

  test('goodput', () => {
    expect(parseGoodput(['ttft:200', 'e2el:5000.5'])).toEqual({ ttft: 200, e2el: 5000.5 });
    for (const wrong of ['ttft', 'ttft:', 'ttft:x']) expect(() => parseGoodput([wrong])).toThrow(/METRIC:MS/);
    expect(() => parseGoodput(['latency:3'])).toThrow(/choose of ttft, tpot, itl, e2el/);
  });
});

describe('the server of the startup benchmark', () => {
  test('gets the flags as they were given', () => {
    const args = serveArguments({ model: 'm', enablePrefixCaching: false, maxNumSeqs: 4, logLevel: 'warning' });
    expect(args.toSorted()).toEqual(['--max-num-seqs=4', '--model=m', '--no-enable-prefix-caching']);
  });

  test('is told of a missing tokenizer', () => {
    expect(skipMissingTokenizer({ model: 'bench/shapes/135m' })).toMatchObject({ skipTokenizerInit: true });
    expect(skipMissingTokenizer({ model: 'models/demo' })).toEqual({ model: 'models/demo' });
  });
});
