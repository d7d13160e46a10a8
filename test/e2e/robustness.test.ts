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

/** Resident MiB of a process. */
function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(status.match(/^VmRSS:\s+(\d+) kB/m)![1]) / 1024;
}

/** Resident MiB of a Bun process that does nothing but listen. */
async function residentMiBOfBun(): Promise<number> {
  const script = `Bun.serve({ port: 0, fetch: () => new Response() }); console.log('listening');`;
  const child = Bun.spawn([process.execPath, '-e', script], { stdin: 'ignore', stdout: 'pipe', stderr: 'inherit' });
  await child.stdout.getReader().read();
  const resident = residentMiB(child.pid);
  child.kill();
  await child.exited;
  return resident;
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

  // Resident memory is read from /proc.
  test.if(process.platform === 'linux')(
    'resident memory stays flat over 10,000 requests, and small',
    async () => {
      // A server of its own: what odd bodies do to the heap is not what is measured.
      const server = await startBao(['demo', '--disable-uvicorn-access-log']);
      const send = async (i: number) => {
        await complete(server, { ...GOOD, prompt: `Request ${i % 500} of many: the capital of France is` });
      };
      // Until then every block of the KV cache has been used once.
      await repeat(NUM_SMALL_REQUESTS / 4, send);
      const growths: number[] = [];
      let resident = residentMiB(server.pid);
      for (let quarter = 0; quarter < 4; quarter++) {
        const before = resident;
        await repeat(NUM_SMALL_REQUESTS / 4, send);
        resident = residentMiB(server.pid);
        growths.push(resident - before);
      }
      // What leaks grows with every request; the heap takes a step now and then, a larger one where its collector has little processor time.
      expect(Math.min(...growths), `MiB in each quarter: ${growths}`).toBeLessThan(12);
      expect(resident - (await residentMiBOfBun())).toBeLessThan(250);
      await server.stop();
    },
    300_000,
  );
});
