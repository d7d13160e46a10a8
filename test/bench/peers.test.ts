import { afterAll, describe, expect, test } from 'bun:test';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unlessAborted } from '../../bench/deadline.ts';
import {
  isMeasured,
  limitTokensPerS,
  type PeerMeasurement,
  type PeerOutcome,
  type PeerRow,
} from '../../bench/peers/figures.ts';
import { llamaServers } from '../../bench/peers/llama-server.ts';
import type { Peer, PeerBatch, PeerWorkload } from '../../bench/peers/peer.ts';
import { PeerRun, type PeerRunOptions } from '../../bench/peers/peer-run.ts';
import { batchRates } from '../../bench/peers/rates.ts';
import { loadSummary, peersTable } from '../../bench/peers/table.ts';
import { UsageError } from '../../src/config/config-error.ts';

const BATCH = { batchSize: 2, requestsEach: 1, inputLen: 10, outputLen: 3 };

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

interface FakeEngine {
  tokensPerS?: number;
  /** Not installed. */
  absent?: true;
  /** In place of a start. */
  start?: (signal: AbortSignal) => Promise<never>;
  /** What it does with a batch first. */
  batch?: (batch: PeerBatch) => Promise<void>;
}

/** An engine whose tokens come at this pace, whatever the batch. */
function fakePeer(name: string, log: string[], engine: FakeEngine = {}): Peer {
  const { tokensPerS = 10 } = engine;
  return {
    name,
    version: async () => (engine.absent ? null : '1.0'),
    async start(_, signal) {
      log.push(`${name} starts`);
      await engine.start?.(signal);
      return {
        readySeconds: 1 / tokensPerS,
        async run(batch) {
          log.push(`${name} ${batch.batchSize}`);
          await engine.batch?.(batch);
          const times = Array.from({ length: batch.outputLen }, (_, i) => (i + 1) / tokensPerS);
          return Array.from({ length: batch.batchSize }, () => ({ times, numTokens: batch.outputLen }));
        },
        pause: () => log.push(`${name} waits`),
        resume: async () => {
          log.push(`${name} goes on`);
        },
        close: async () => {
          log.push(`${name} closed`);
        },
      };
    },
  };
}

const WORKLOAD: PeerWorkload = {
  ...({ model: 'shapes/x', dummyWeights: true, quantization: 'none' } as const),
  ...{ threads: 1, maxModelLen: 8, maxBatchSize: 2 },
};
const DECODE: PeerMeasurement = { aspect: 'decode', ...BATCH };
const NEVER = new AbortController().signal;
const OPTIONS: PeerRunOptions = { rounds: 1, readyTimeoutSeconds: 60, turnTimeoutSeconds: 60, signal: NEVER };

/** Peer and rate, or peer and error. */
function shown(rows: readonly PeerOutcome[]): (string | number)[][] {
  return rows.map((row) => [row.peer, isMeasured(row) ? Math.round(row.tokens_per_s) : row.error]);
}

/** Does nothing until the signal is aborted, and rejects with its reason. */
function hang(signal: AbortSignal): Promise<never> {
  return unlessAborted(new Promise<never>(() => {}), signal);
}

describe('a run', () => {
  test('has turns, between which engines wait; one that is not installed sits out', async () => {
    const log: string[] = [];
    const peers = [
      fakePeer('a', log),
      fakePeer('absent', log, { absent: true }),
      fakePeer('b', log, { tokensPerS: 20 }),
    ];
    const run = await PeerRun.start(peers, WORKLOAD, { ...OPTIONS, rounds: 2 });
    expect(log.splice(0)).toEqual(['a starts', 'a waits', 'b starts', 'b waits']);
    const rows = await run.measure(DECODE);
    const round = ['a goes on', 'a 2', 'a waits', 'b goes on', 'b 2', 'b waits'];
    expect(log.splice(0)).toEqual([...round, ...round, ...round]);
    await run.close();
    expect(log).toEqual(['a closed', 'b closed']);
    expect(run.versions).toEqual({ a: '1.0', b: '1.0' });
    expect(run.readySeconds).toEqual({ a: 0.1, b: 0.05 });
    expect(shown(rows)).toEqual([
      ['a', 20],
      ['b', 40],
    ]);
  });

  test('goes on with the others, and the next load, when an engine fails in one', async () => {
    const log: string[] = [];
    const batch = async ({ batchSize }: PeerBatch) => {
      if (batchSize === 2) throw new Error('no memory');
    };
    const run = await PeerRun.start([fakePeer('a', log, { batch }), fakePeer('b', log)], WORKLOAD, OPTIONS);
    log.splice(0);
    expect(shown(await run.measure(DECODE))).toEqual([
      ['a', 'no memory'],
      ['b', 20],
    ]);
    const b = ['b goes on', 'b 2', 'b waits'];
    expect(log).toEqual(['a goes on', 'a 2', 'a waits', ...b, ...b]);
    expect(shown(await run.measure({ ...DECODE, batchSize: 1 }))).toEqual([
      ['a', 10],
      ['b', 10],
    ]);
  });

  test('ends an engine that takes too long for a batch, and names it in all later loads', async () => {
    const log: string[] = [];
    const peers = [fakePeer('a', log, { batch: () => hang(NEVER) }), fakePeer('b', log)];
    const run = await PeerRun.start(peers, WORKLOAD, { ...OPTIONS, turnTimeoutSeconds: 0.01 });
    const rows = [
      ['a', 'A batch took longer than 0.01 s.'],
      ['b', 20],
    ];
    expect(shown(await run.measure(DECODE))).toEqual(rows);
    expect(shown(await run.measure(DECODE))).toEqual(rows);
    await run.close();
    expect(log.filter((entry) => entry.startsWith('a '))).toEqual([
      ...['a starts', 'a waits', 'a goes on', 'a 2', 'a waits', 'a closed'],
    ]);
  });

  test('goes on without engines that do not start, or not in time', async () => {
    const log: string[] = [];
    const broken = fakePeer('broken', log, { start: () => Promise.reject(new Error('no memory')) });
    const slow = fakePeer('slow', log, { start: hang });
    const options = { ...OPTIONS, readyTimeoutSeconds: 0.01 };
    const run = await PeerRun.start([broken, slow, fakePeer('a', log)], WORKLOAD, options);
    expect(Object.keys(run.versions)).toEqual(['broken', 'slow', 'a']);
    expect(run.readySeconds).toEqual({ a: 0.1 });
    expect(shown(await run.measure(DECODE))).toEqual([
      ['broken', 'no memory'],
      ['slow', 'Its start took longer than 0.01 s.'],
      ['a', 20],
    ]);
    await expect(PeerRun.start([broken], WORKLOAD, OPTIONS)).rejects.toThrow('no memory');
  });

  test('an engine that is not where it should be, or has the name of another, is told before any starts', async () => {
    const log: string[] = [];
    const missing: Peer = {
      ...fakePeer('missing', log),
      version: () => Promise.reject(new UsageError('is no program')),
    };
    await expect(PeerRun.start([fakePeer('a', log), missing], WORKLOAD, OPTIONS)).rejects.toThrow('is no program');
    const twice = [fakePeer('a', log), fakePeer('a', log)];
    await expect(PeerRun.start(twice, WORKLOAD, OPTIONS)).rejects.toThrow('Two engines are named "a"');
    expect(log).toEqual([]);
  });

  test('ends where it is when it is interrupted', async () => {
    const [log, controller] = [[] as string[], new AbortController()];
    const batch = async () => {
      controller.abort(new Error('Interrupted.'));
      await hang(NEVER);
    };
    const peers = [fakePeer('a', log, { batch }), fakePeer('b', log)];
    const run = await PeerRun.start(peers, WORKLOAD, { ...OPTIONS, signal: controller.signal });
    log.splice(0);
    await expect(run.measure(DECODE)).rejects.toThrow('Interrupted.');
    expect(log).toEqual(['a goes on', 'a 2', 'a waits']);
  });

  test('closes what has started when it is interrupted while an engine starts', async () => {
    const [log, controller] = [[] as string[], new AbortController()];
    const start = (signal: AbortSignal) => {
      controller.abort(new Error('Interrupted.'));
      return hang(signal);
    };
    const peers = [fakePeer('a', log), fakePeer('b', log, { start }), fakePeer('c', log)];
    const run = PeerRun.start(peers, WORKLOAD, { ...OPTIONS, signal: controller.signal });
    await expect(run).rejects.toThrow('Interrupted.');
    expect(log).toEqual(['a starts', 'a waits', 'b starts', 'a closed']);
  });
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

const FIGURES = {
  ...{ model: 'shapes/x', quantization: 'none', threads: 1, complete: true, versions: { a: '1.0', b: '2.0' } },
  ...{ ready_s: { a: 0.5, b: 2 }, limit_read_gbps: 20, limit_gflops: 100 },
};

/** Its cells, without the line under the head. */
function cellsOf(table: string): string[][] {
  const [head, , ...lines] = table.trimEnd().split('\n');
  return [head!, ...lines].map((line) => line.split(/ {2,}/));
}

test('the table has a row for each load, a column for each engine, the ratios and the share of the limit', () => {
  const row = { ...ROW, aspect: 'decode', limit_tokens_per_s: 20 } as const;
  expect(cellsOf(peersTable({ ...FIGURES, rows: [row, { ...row, peer: 'b', tokens_per_s: 4 }] }))).toEqual([
    ['tokens/s', 'a 1.0', 'b 2.0', 'a : b', 'a of limit'],
    ['decode, batch 1', '10', '4', '2.50', '0.50 of 20'],
    ['command to ready, s', '0.5', '2', '4.00'],
  ]);
});

test('the table names what failed, and why', () => {
  const { tokens_per_s, tokens_per_s_rounds, ...load } = ROW;
  const decode = { aspect: 'decode', limit_tokens_per_s: 20 } as const;
  const rows: PeerRow[] = [
    { ...ROW, ...decode },
    { ...load, ...decode, peer: 'b', error: 'no memory' },
    { ...load, ...decode, batch_size: 2, error: 'HTTP 500' },
    { ...load, ...decode, batch_size: 2, peer: 'b', error: 'no memory' },
  ];
  const table = peersTable({ ...FIGURES, ready_s: { a: 0.5 }, rows });
  expect(cellsOf(table)).toEqual([
    ['tokens/s', 'a 1.0', 'b 2.0', 'a : b', 'a of limit'],
    ['decode, batch 1', '10', 'failed', '0.50 of 20'],
    ['decode, batch 2', 'failed', 'failed'],
    ['command to ready, s', '0.5', 'failed'],
    ['decode, batch 1; decode, batch 2: b: no memory'],
    ['decode, batch 2: a: HTTP 500'],
  ]);
  expect(loadSummary(rows.slice(0, 2))).toBe('decode, batch 1: a 10 tok/s, b failed\ndecode, batch 1: b: no memory\n');
});

/**
 * A llama-server that loads for a moment, then answers each prompt with its length, and says what it was started with. In `requests` beside it is,
 * for each request, the port that it came from and the number of tokens wanted.
 */
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
const { appendFileSync } = require('node:fs');
const record = require('node:path').join(__dirname, 'requests');
const loadedAt = performance.now() + 100;
const server = Bun.serve({
  hostname: value('--host'),
  port: Number(value('--port')),
  async fetch(request) {
    if (value('--model') === 'endless.gguf') return new Response(null, { status: 503 });
    if (request.url.endsWith('/health')) return new Response(null, { status: performance.now() < loadedAt ? 503 : 200 });
    const { prompt, max_tokens, cache_prompt, ignore_eos } = await request.json();
    appendFileSync(record, server.requestIP(request).port + ' ' + max_tokens + '\\n');
    if (max_tokens === 4) process.exit(9);
    const asked = cache_prompt === false && ignore_eos && prompt.length === (max_tokens === 3 ? 8 : 4);
    const started = value('--parallel') === '2' && value('--ctx-size') === '16' && value('--threads') === '1' && value('-fa') === 'on';
    const events = asked && started ? Array(max_tokens).fill({ choices: [{ text: 'x' }] }) : [{ error: 'not what was expected' }];
    const usage = { choices: [], usage: { prompt_tokens: 8, completion_tokens: max_tokens } };
    const text = [...events, usage].map((event) => 'data: ' + JSON.stringify(event) + '\\n\\n').join('');
    return new Response(text + 'data: [DONE]\\n\\n', { headers: { 'content-type': 'text/event-stream' } });
  },
});
`;

describe('llama-server', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bao-llama-server-'));
  const program = join(folder, 'llama-server');
  const requests = join(folder, 'requests');
  writeFileSync(program, LLAMA_SERVER, { mode: 0o755 });
  afterAll(() => rmSync(folder, { recursive: true }));
  const locations = { vllmPython: null, nodeLlamaCpp: null, gguf: 'model.gguf' };
  const batch = { batchSize: 2, requestsEach: 1, inputLen: 8, outputLen: 3 };

  test('it is waited for until its model is loaded, and gets prompts that it may not take from its cache', async () => {
    const [peer] = llamaServers({ ...locations, llamaServer: [`fork=${program} -fa on`] });
    expect([peer!.name, await peer!.version(WORKLOAD)]).toEqual(['fork', '7 (abc) -fa on']);
    const session = await peer!.start(WORKLOAD, NEVER);
    try {
      expect(session.readySeconds).toBeGreaterThanOrEqual(0.1);
      const arrivals = await session.run(batch);
      expect(arrivals.map(({ times, numTokens }) => [times.length, numTokens])).toEqual([
        [3, 3],
        [3, 3],
      ]);
      const several = await session.run({ ...batch, requestsEach: 2 });
      const begins = several.map(({ times }) => times[0]!).sort((a, b) => a - b);
      const ends = several.map(({ times }) => times.at(-1)!).sort((a, b) => a - b);
      expect(several).toHaveLength(4);
      expect(begins[2]!).toBeGreaterThan(ends[0]!);
    } finally {
      await session.close();
    }
  });

  test('when it goes on it gets a small batch, over connections that the measured one then has', async () => {
    const [peer] = llamaServers({ ...locations, llamaServer: [`fork=${program} -fa on`] });
    const session = await peer!.start(WORKLOAD, NEVER);
    try {
      const turn = async () => {
        writeFileSync(requests, '');
        await session.resume(batch);
        await session.run(batch);
        session.pause();
        const lines = readFileSync(requests, 'utf8').trim().split('\n');
        const pairs = lines.map((line) => line.split(' ').map(Number));
        expect(pairs.map(([, tokens]) => tokens)).toEqual([2, 2, 3, 3]);
        const [small, measured] = [pairs.slice(0, 2), pairs.slice(2)].map((half) => half.map(([port]) => port!).sort());
        expect(measured).toEqual(small!);
      };
      session.pause();
      await turn();
      await turn();
    } finally {
      await session.close();
    }
  });

  test('one that ends during a batch is an error with its exit code', async () => {
    const [peer] = llamaServers({ ...locations, llamaServer: [`fork=${program} -fa on`] });
    const session = await peer!.start(WORKLOAD, NEVER);
    try {
      await expect(session.run({ ...batch, outputLen: 4 })).rejects.toThrow('ended with code 9');
      await expect(session.run(batch)).rejects.toThrow('ended with code 9');
    } finally {
      await session.close();
    }
  });

  test('one that is still loading when its time is over is ended', async () => {
    const [peer] = llamaServers({ ...locations, gguf: 'endless.gguf', llamaServer: [`fork=${program}`] });
    const reason = new Error('too late');
    await expect(peer!.start(WORKLOAD, AbortSignal.abort(reason))).rejects.toBe(reason);
  });

  test('a name of a file may have spaces', async () => {
    const [peer] = llamaServers({ ...locations, llamaServer: ['fork=/no where/llama-server -fa on'] });
    await expect(peer!.version(WORKLOAD)).rejects.toThrow('fork=/no where/llama-server is no program');
  });

  test('one that ends is an error with the end of its log', async () => {
    const [peer] = llamaServers({ ...locations, gguf: 'broken.gguf', llamaServer: [`fork=${program}`] });
    await expect(peer!.start(WORKLOAD, NEVER)).rejects.toThrow(/ended with code 3:\nno tensors in broken.gguf/);
  });

  test.each(['llama-server', 'fork=', '=x'])('%p is refused', (entry) => {
    expect(() => llamaServers({ ...locations, llamaServer: [entry] })).toThrow(`NAME=FILE`);
  });

  test('a program that is not there is named', async () => {
    const [peer] = llamaServers({ ...locations, llamaServer: ['fork=/nowhere/llama-server'] });
    await expect(peer!.version(WORKLOAD)).rejects.toThrow('fork=/nowhere/llama-server is no program');
  });
});
