import { afterAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { peersTable } from '../../bench/commands/peers.ts';
import { llamaServers } from '../../bench/peers/llama-server.ts';
import { limitTokensPerS, measurePeers, type PeerMeasurement } from '../../bench/peers/measure.ts';
import type { Peer, PeerWorkload } from '../../bench/peers/peer.ts';
import { batchRates } from '../../bench/peers/rates.ts';

const BATCH = { batchSize: 2, inputLen: 10, outputLen: 3 };

test('a batch is divided where its last sequence begins', () => {
  const arrivals = [
    { times: [1, 2, 3], numTokens: 3 },
    { times: [2, 3, 4], numTokens: 3 },
  ];
  // 20 prompt tokens in 2 s; then 1 and 2 tokens in 2 s; 6 in 4 s.
  expect(batchRates(BATCH, arrivals)).toEqual({ prefill: 10, decode: 1.5, output: 1.5 });
});

test('a piece of the stream may bring several tokens', () => {
  const arrivals = [{ times: [1, 2], numTokens: 4 }];
  expect(batchRates({ ...BATCH, batchSize: 1 }, arrivals)).toEqual({ prefill: 10, decode: 2, output: 2 });
});

test('a single token has no decode rate', () => {
  expect(batchRates({ ...BATCH, batchSize: 1 }, [{ times: [2], numTokens: 1 }]).decode).toBe(0);
});

/** An engine whose tokens come at this pace, whatever the batch. */
function fakePeer(name: string, tokensPerS: number, log: string[]): Peer {
  return {
    name,
    version: async () => (tokensPerS === 0 ? null : '1.0'),
    start: async () => ({
      readySeconds: 1 / tokensPerS,
      run: async ({ batchSize, outputLen }) => {
        log.push(`${name} ${batchSize}`);
        const times = Array.from({ length: outputLen }, (_, i) => (i + 1) / tokensPerS);
        return Array.from({ length: batchSize }, () => ({ times, numTokens: outputLen }));
      },
      close: async () => {
        log.push(`${name} closed`);
      },
    }),
  };
}

const WORKLOAD: PeerWorkload = {
  ...({ model: 'shapes/x', dummyWeights: true, quantization: 'none' } as const),
  ...{ threads: 1, maxModelLen: 8, maxBatchSize: 2 },
};
const DECODE: PeerMeasurement = { aspect: 'decode', ...BATCH };

test('peers take turns, and one that is not installed sits out', async () => {
  const log: string[] = [];
  const peers = [fakePeer('a', 10, log), fakePeer('absent', 0, log), fakePeer('b', 20, log)];
  const told: unknown[] = [];
  const { versions, ready_s, rows } = await measurePeers(peers, WORKLOAD, [DECODE], 2, (each) => told.push(...each));
  expect(told).toEqual(rows);
  expect(log).toEqual(['a 2', 'b 2', 'a 2', 'b 2', 'a 2', 'b 2', 'a closed', 'b closed']);
  expect(versions).toEqual({ a: '1.0', b: '1.0' });
  expect(ready_s).toEqual({ a: 0.1, b: 0.05 });
  expect(rows.map(({ peer, tokens_per_s }) => [peer, Math.round(tokens_per_s)])).toEqual([
    ['a', 20],
    ['b', 40],
  ]);
});

test('engines are closed when one fails', async () => {
  const log: string[] = [];
  const broken: Peer = {
    ...fakePeer('broken', 1, log),
    start: async () => {
      throw new Error('no memory');
    },
  };
  const run = measurePeers([fakePeer('a', 10, log), broken], WORKLOAD, [DECODE], 1);
  await expect(run).rejects.toThrow('no memory');
  expect(log).toEqual(['a closed']);
});

const COST = { weightBytes: 1e9, flopsPerToken: 1e9, kvBytes: () => 0 };
const ROW = { peer: 'a', batch_size: 1, input_len: 8, output_len: 4, tokens_per_s: 10, tokens_per_s_rounds: [10] };

test('a limit is what binds: reading at small batches, operations at large ones and in a prefill', () => {
  const limits = { read_gbps: 20, gflops: 100 };
  expect(limitTokensPerS({ ...ROW, aspect: 'decode' }, COST, limits)).toBe(20);
  expect(limitTokensPerS({ ...ROW, aspect: 'decode', batch_size: 8 }, COST, limits)).toBe(100);
  expect(limitTokensPerS({ ...ROW, aspect: 'prefill' }, COST, limits)).toBe(100);
  expect(limitTokensPerS({ ...ROW, aspect: 'streams' }, COST, limits)).toBeNull();
});

test('the table has a row for each load, a column for each engine, the ratios and the share of the limit', () => {
  const table = peersTable({
    ...{ model: 'shapes/x', quantization: 'none', threads: 1, versions: { a: '1.0', b: '2.0' } },
    ready_s: { a: 0.5, b: 2 },
    rows: [
      { ...ROW, aspect: 'decode', limit_tokens_per_s: 20 },
      { ...ROW, aspect: 'decode', limit_tokens_per_s: 20, peer: 'b', tokens_per_s: 4 },
    ],
    ...{ limit_read_gbps: 20, limit_gflops: 100 },
  });
  expect(table.split('\n').map((line) => line.split(/ {2,}/))).toMatchObject([
    ['tokens/s', 'a 1.0', 'b 2.0', 'a : b', 'a of limit'],
    expect.anything(),
    ['decode, batch 1', '10', '4', '2.50', '0.50 of 20'],
    ['command to ready, s', '0.5', '2', '4.00'],
    [''],
  ]);
});

/** A llama-server that loads for a moment, then answers each prompt with its length, and says what it was started with. */
const LLAMA_SERVER = `#!${process.execPath}
if (process.argv[2] === '--version') {
  console.error('version: 7 (abc)\\nbuilt with nothing');
  process.exit();
}
const value = (flag) => process.argv[process.argv.indexOf(flag) + 1];
if (value('--model') === 'broken.gguf') {
  console.error('no tensors in broken.gguf');
  process.exit(3);
}
const loadedAt = performance.now() + 100;
Bun.serve({
  hostname: value('--host'),
  port: Number(value('--port')),
  async fetch(request) {
    if (request.url.endsWith('/health')) return new Response(null, { status: performance.now() < loadedAt ? 503 : 200 });
    const { prompt, max_tokens, cache_prompt, ignore_eos } = await request.json();
    const asked = cache_prompt === false && ignore_eos && prompt.length === 8 && max_tokens === 3;
    const started = value('--parallel') === '2' && value('--ctx-size') === '16' && value('--threads') === '1' && value('-fa') === 'on';
    const events = asked && started ? Array(3).fill({ choices: [{ text: 'x' }] }) : [{ error: 'not what was expected' }];
    const usage = { choices: [], usage: { prompt_tokens: 8, completion_tokens: 3 } };
    const text = [...events, usage].map((event) => 'data: ' + JSON.stringify(event) + '\\n\\n').join('');
    return new Response(text + 'data: [DONE]\\n\\n', { headers: { 'content-type': 'text/event-stream' } });
  },
});
`;

describe('llama-server', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-llama-server-'));
  const program = join(folder, 'llama-server');
  writeFileSync(program, LLAMA_SERVER, { mode: 0o755 });
  afterAll(() => rmSync(folder, { recursive: true }));
  const locations = { vllmPython: null, nodeLlamaCpp: null, gguf: 'model.gguf' };

  test('it is waited for until its model is loaded, and gets prompts that it may not take from its cache', async () => {
    const [peer] = llamaServers({ ...locations, llamaServer: [`fork=${program} -fa on`] });
    expect([peer!.name, await peer!.version(WORKLOAD)]).toEqual(['fork', '7 (abc) -fa on']);
    const session = await peer!.start(WORKLOAD);
    try {
      expect(session.readySeconds).toBeGreaterThanOrEqual(0.1);
      const arrivals = await session.run({ batchSize: 2, inputLen: 8, outputLen: 3 });
      expect(arrivals.map(({ times, numTokens }) => [times.length, numTokens])).toEqual([
        [3, 3],
        [3, 3],
      ]);
    } finally {
      await session.close();
    }
  });

  test('a name of a file may have spaces', async () => {
    const [peer] = llamaServers({ ...locations, llamaServer: ['fork=/no where/llama-server -fa on'] });
    await expect(peer!.version(WORKLOAD)).rejects.toThrow('fork=/no where/llama-server is no program');
  });

  test('one that ends is an error with the end of its log', async () => {
    const [peer] = llamaServers({ ...locations, gguf: 'broken.gguf', llamaServer: [`fork=${program}`] });
    await expect(peer!.start(WORKLOAD)).rejects.toThrow(/ended with code 3:\nno tensors in broken.gguf/);
  });

  test.each(['llama-server', 'fork=', '=x'])('%p is refused', (entry) => {
    expect(() => llamaServers({ ...locations, llamaServer: [entry] })).toThrow(`NAME=FILE`);
  });

  test('a program that is not there is named', async () => {
    const [peer] = llamaServers({ ...locations, llamaServer: ['fork=/nowhere/llama-server'] });
    await expect(peer!.version(WORKLOAD)).rejects.toThrow('fork=/nowhere/llama-server is no program');
  });
});
