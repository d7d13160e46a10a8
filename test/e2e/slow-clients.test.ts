import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { connect } from 'node:net';
import { type BaoProcess, post, startBao } from './bao-process.ts';

let server: BaoProcess;
beforeAll(async () => {
  server = await startBao(['demo', '--request-body-timeout', '0.5', '--http-timeout-keep-alive', '1']);
});
afterAll(() => server.stop());

/** What a raw connection was sent until the server closed it. */
function conversation(text: string, { url } = server): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1', () => socket.write(text));
    let heard = '';
    socket.on('data', (data) => {
      heard += data;
    });
    socket.on('close', () => resolve(heard));
    socket.on('error', reject);
  });
}

const head = (length: number) =>
  `POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`;
const body = (fields = {}) => JSON.stringify({ model: 'demo', prompt: 'Hello', max_tokens: 2, ...fields });
const whole = (fields = {}) => head(body(fields).length) + body(fields);

describe('the server closes', () => {
  test.concurrent('a request whose body stops, small or large, with 408', async () => {
    for (const length of [1000, 1_000_000]) {
      const heard = await conversation(`${head(length)}{"prompt":`);
      expect(heard).toStartWith('HTTP/1.1 408 ');
      expect(heard).toContain('--request-body-timeout');
    }
  });

  test.concurrent('a connection that stays idle behind an answer or a stream', async () => {
    const [answer, stream] = await Promise.all([conversation(whole()), conversation(whole({ stream: true }))]);
    expect(answer).toStartWith('HTTP/1.1 200 OK');
    expect(stream).toContain('[DONE]');
  });

  test.concurrent('a connection whose head never ends', async () => {
    expect(await conversation('GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ')).toBe('');
  });

  test.concurrent('a head that is too long, or has too many fields, with 431', async () => {
    const fields = Array.from({ length: 300 }, (_, i) => `X-${i}: a\r\n`).join('');
    for (const more of [fields, `X-Long: ${'a'.repeat(20_000)}\r\n`]) {
      expect(await conversation(`GET /health HTTP/1.1\r\nHost: localhost\r\n${more}\r\n`)).toStartWith('HTTP/1.1 431 ');
    }
  });

  test.concurrent('no answer, though it is silent for longer than a connection may be idle, and no request that runs without a token', async () => {
    const paused = await startBao(['demo', '--server-dev-mode', '--http-timeout-keep-alive', '1'], {
      slow: 'slow',
      env: { BAO_ENGINE_PROGRESS_TIMEOUT_S: '4' },
    });
    const call = (path: string) => fetch(`${paused.url}${path}`, { method: 'POST' });
    const running = conversation(whole({ max_tokens: 500, ignore_eos: true }), paused);
    const hasStarted = async () =>
      /^vllm:num_requests_running\{.*\} 1$/m.test(await (await fetch(`${paused.url}/metrics`)).text());
    while (!(await hasStarted())) await Bun.sleep(5);
    await call('/sleep?level=0&mode=keep');
    paused.hurry();
    const answers = Promise.all([conversation(whole(), paused), conversation(whole({ stream: true }), paused)]);
    // Bun looks at idle connections every four seconds.
    await Bun.sleep(9000);
    await call('/wake_up');
    const [answer, stream] = await answers;
    expect(await running).toStartWith('HTTP/1.1 200 OK');
    expect(answer).toStartWith('HTTP/1.1 200 OK');
    expect(stream).toContain('[DONE]');
    await paused.stop();
  });
});

test('a body above the limit is refused with the reason, announced or not', async () => {
  const bytes = new Uint8Array(33 * 2 ** 20);
  const pieces = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += 2 ** 20) controller.enqueue(bytes.subarray(at, at + 2 ** 20));
      controller.close();
    },
  });
  for (const sent of [bytes, pieces]) {
    const { status, body: answer } = await post(`${server.url}/v1/completions`, {}, { body: sent });
    expect(status).toBe(413);
    expect(answer).toMatchObject({ error: { code: 413, message: expect.stringContaining('--request-body-limit') } });
  }
});

test('more requests than may be under way are refused unread, and the operator is not; those that end make room', async () => {
  const limited = await startBao(['demo', '--limit-concurrency', '3', '--request-body-timeout', '600']);
  const port = Number(new URL(limited.url).port);
  // Bodies that never come: three are waited for, and the fourth is refused.
  const refusal = Promise.withResolvers<string>();
  const sockets = Array.from({ length: 4 }, () => {
    const socket = connect(port, '127.0.0.1', () => socket.write(`${head(200_000)}{"prompt":`));
    return socket.on('error', () => {}).once('data', (data) => refusal.resolve(String(data)));
  });
  try {
    const complete = () =>
      fetch(`${limited.url}/v1/completions`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: body(),
      });
    expect(await refusal.promise).toStartWith('HTTP/1.1 503 ');
    const refused = await complete();
    expect([refused.status, refused.headers.get('Retry-After')]).toEqual([503, '1']);
    expect(await refused.text()).toContain('--limit-concurrency 3');
    for (const path of ['/health', '/metrics']) expect((await fetch(limited.url + path)).status, path).toBe(200);
    for (const socket of sockets) socket.destroy();
    while ((await complete()).status !== 200) await Bun.sleep(20);
  } finally {
    for (const socket of sockets) socket.destroy();
    await limited.stop();
  }
});
