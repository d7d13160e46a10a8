import { afterAll, beforeAll, expect, test } from 'bun:test';
import { type BaoProcess, startBao } from './bao-process.ts';

let server: BaoProcess;
beforeAll(async () => {
  server = await startBao(['demo', '--max-num-seqs', '4', '--max-num-queued-reqs', '12'], { slow: 'slow' });
});
afterAll(() => server.stop());

test('under more than it can take, the server answers 503 at once, and /health and /metrics all the same', async () => {
  const ask = async () => {
    const response = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ model: 'demo', prompt: 'Once upon a time', max_tokens: 100, ignore_eos: true }),
    });
    await response.text();
    return response;
  };
  const answers = Promise.all(Array.from({ length: 40 }, ask));
  const watched: [status: number, running: number][] = [];
  let isOver = false;
  const loaded = answers.then((all) => {
    isOver = true;
    return all;
  });
  while (!isOver) {
    const health = await fetch(`${server.url}/health`);
    const metrics = await fetch(`${server.url}/metrics`);
    expect(metrics.status).toBe(200);
    const running = Number(/^vllm:num_requests_running\{.*\} (\S+)$/m.exec(await metrics.text())![1]);
    watched.push([health.status, running]);
    // It was asked while all rows of the batch were taken.
    if (running === 4) server.hurry();
  }
  expect(watched.every(([status]) => status === 200)).toBe(true);

  const statuses = (await loaded).map(({ status }) => status);
  expect(new Set(statuses)).toEqual(new Set([200, 503]));
  expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(12);
  const refused = (await loaded).filter(({ status }) => status === 503);
  expect(refused.every(({ headers }) => headers.get('Retry-After') === '1')).toBe(true);
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const rejections = /^vllm:admission_rejections_total\{.*reason="queue_full".*\} (\S+)$/m.exec(text);
  expect(Number(rejections![1])).toBe(refused.length);
});
