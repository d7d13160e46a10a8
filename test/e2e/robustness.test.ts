import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { BodyFuzzer } from '../fixtures/body-fuzzer.ts';
import { type BaoProcess, complete, startBao } from './bao-process.ts';

const NUM_FUZZED = 10_000;
const NUM_SMALL_REQUESTS = 10_000;
const CONCURRENCY = 32;
const GOOD = { model: 'demo', prompt: 'The capital of France is', max_tokens: 4, temperature: 0 };

let server: BaoProcess;
beforeAll(async () => {
  server = await startBao(['demo', '--disable-uvicorn-access-log']);
});
afterAll(() => server.stop());

/** Runs `work(i)` for i < count, `CONCURRENCY` at once. */
async function repeat(count: number, work: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, lane));
}

/** Resident bytes of the process. */
function residentBytes(): number {
  const status = readFileSync(`/proc/${server.pid}/status`, 'utf8');
  return Number(status.match(/^VmRSS:\s+(\d+) kB/m)![1]) * 1024;
}

describe('a real server', () => {
  test('10,000 fuzzed bodies: never a 5xx, never a hang, the next good request is answered', async () => {
    const seed = Number(process.env.BAO_FUZZ_SEED ?? Math.floor(Math.random() * 2 ** 31));
    const fuzzer = new BodyFuzzer(seed);
    await repeat(NUM_FUZZED, async () => {
      const { path, body } = fuzzer.next();
      const response = await fetch(server.url + path, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: body as BodyInit,
      });
      const text = await response.text();
      if (response.status >= 500) {
        throw new Error(
          `seed ${seed}: ${path} gave ${response.status} for ${Buffer.from(body).toString('latin1').slice(0, 500)}: ${text}`,
        );
      }
    });
    expect((await complete(server, GOOD)).choices[0]!.text).toStartWith(' Paris');
  }, 300_000);

  test('resident memory stays flat over 10,000 requests', async () => {
    const send = async (i: number) => {
      await complete(server, { ...GOOD, prompt: `Request ${i % 500} of many: the capital of France is` });
    };
    await repeat(NUM_SMALL_REQUESTS / 4, send);
    const before = residentBytes();
    await repeat(NUM_SMALL_REQUESTS, send);
    const grownMiB = (residentBytes() - before) / 2 ** 20;
    expect(grownMiB).toBeLessThan(64);
  }, 300_000);
});
