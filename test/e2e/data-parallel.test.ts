import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { type BaoProcess, complete, post, startBao } from './bao-process.ts';

let server: BaoProcess;
beforeAll(async () => {
  server = await startBao([
    'demo',
    '--data-parallel-size',
    '2',
    '--cpu-threads',
    '2',
    '--api-server-count',
    '2',
    '--enable-server-load-tracking',
  ]);
});
afterAll(() => server.stop());

/** Value of a metric by engine. */
async function byEngine(name: string): Promise<Record<string, number>> {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  const lines = [...text.matchAll(new RegExp(`^${name}\\{.*?engine="(\\d+)".*?\\} (\\S+)`, 'gm'))];
  return Object.fromEntries(lines.map(([, engine, value]) => [engine!, Number(value)]));
}

describe('two cores behind two API servers', () => {
  test('requests are spread over the cores and all answered alike', async () => {
    const request = {
      model: 'demo',
      prompt: 'The capital of France is',
      max_tokens: 30,
      temperature: 0,
      ignore_eos: true,
    };
    const answers = await Promise.all(Array.from({ length: 24 }, () => complete(server, request)));
    expect(new Set(answers.map((answer) => answer.choices[0]!.text)).size).toBe(1);
    const tokens = await byEngine('vllm:generation_tokens_total');
    expect(Object.keys(tokens)).toEqual(['0', '1']);
    expect(tokens['0']! + tokens['1']!).toBe(24 * 30);
    expect(Math.min(tokens['0']!, tokens['1']!)).toBeGreaterThan(100);
  });

  test('X-data-parallel-rank chooses the core; a rank that is not there is a 400', async () => {
    const before = await byEngine('vllm:generation_tokens_total');
    const send = (rank: string) =>
      post(
        `${server.url}/v1/completions`,
        { model: 'demo', prompt: 'Hello', max_tokens: 10, ignore_eos: true },
        { headers: { 'Content-Type': 'application/json', 'X-data-parallel-rank': rank } },
      );
    for (let i = 0; i < 4; i++) expect((await send('1')).status).toBe(200);
    const after = await byEngine('vllm:generation_tokens_total');
    expect(after['1']! - before['1']!).toBe(40);
    expect(after['0']).toBe(before['0']!);
    expect((await send('2')).status).toBe(400);
  });

  test('the metrics are those of all API servers, whichever answers', async () => {
    const count = async () => {
      const text = await (await fetch(`${server.url}/metrics`, { keepalive: false })).text();
      return [...text.matchAll(/^vllm:request_success_total\{.*\} (\d+)/gm)].reduce((sum, [, n]) => sum + Number(n), 0);
    };
    const counts = await Promise.all(Array.from({ length: 10 }, count));
    expect(new Set(counts).size).toBe(1);
    expect(counts[0]).toBeGreaterThanOrEqual(28);
  });

  test('/load counts the requests of all API servers', async () => {
    const load = async () =>
      ((await (await fetch(`${server.url}/load`, { keepalive: false })).json()) as { server_load: number }).server_load;
    const abort = new AbortController();
    const running = Array.from({ length: 8 }, () =>
      post(
        `${server.url}/v1/completions`,
        { model: 'demo', prompt: 'Hello', max_tokens: 4000, ignore_eos: true },
        { signal: abort.signal, keepalive: false, headers: { 'Content-Type': 'application/json' } },
      ).catch(() => null),
    );
    while ((await load()) < running.length) await Bun.sleep(10);
    expect(new Set(await Promise.all(Array.from({ length: 8 }, load)))).toEqual(new Set([8]));
    abort.abort();
    await Promise.all(running);
    while ((await load()) > 0) await Bun.sleep(10);
  });
});
