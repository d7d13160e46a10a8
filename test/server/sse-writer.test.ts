import { expect, test } from 'bun:test';
import { SseWriter } from '../../src/server/generation/sse-writer.ts';

const EVENT = `data: ${'x'.repeat(92)}\n\n`;

test('an unread body overflows once, and what was written can still be read', async () => {
  let overflows = 0;
  const writer = new SseWriter({ onCancel() {}, onOverflow: () => overflows++, maxUnread: 10 * EVENT.length });
  for (let i = 0; i < 10; i++) writer.write(EVENT);
  expect(overflows).toBe(0);
  for (let i = 0; i < 3; i++) writer.write(EVENT);
  expect(overflows).toBe(1);
  writer.end();
  expect(await new Response(writer.body).text()).toBe(EVENT.repeat(13));
});

test('a client that stops reading is found, one that goes on gets everything in order', async () => {
  const numEvents = 30_000;
  const overflowed = Promise.withResolvers<void>();
  let isOverflowed = false;
  using server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch(request) {
      const isSlow = new URL(request.url).pathname === '/slow';
      const onOverflow = () => {
        isOverflowed = true;
        overflowed.resolve();
      };
      const writer = new SseWriter({ onCancel() {}, onOverflow, maxUnread: isSlow ? 2 ** 20 : 2 ** 30 });
      let next = 0;
      const writeSome = () => {
        for (let i = 0; i < 1000; i++) writer.write(`data: ${next++} ${'x'.repeat(90)}\n\n`);
        if (isSlow ? !isOverflowed : next < numEvents) setImmediate(writeSome);
        else writer.end();
      };
      writeSome();
      return new Response(writer.body);
    },
  });
  const slow = await Bun.connect({
    hostname: '127.0.0.1',
    port: server.port!,
    socket: {
      data() {},
      open(socket) {
        socket.pause();
        socket.write('GET /slow HTTP/1.1\r\nHost: x\r\n\r\n');
      },
    },
  });
  await overflowed.promise;
  slow.terminate();

  const events = (await (await fetch(`${server.url}fast`)).text()).trim().split('\n\n');
  expect(events).toHaveLength(numEvents);
  events.forEach((event, i) => {
    if (!event.startsWith(`data: ${i} `)) throw new Error(`event ${i} is ${event.slice(0, 20)}`);
  });
});

test('an answer waits for an event that comes at once, and for no other', async () => {
  const quick = new SseWriter({ onCancel() {} });
  const answering = quick.response();
  await Bun.sleep(0);
  quick.write(EVENT);
  quick.end();
  expect(await (await answering).text()).toBe(EVENT);

  const writer = new SseWriter({ onCancel() {} });
  const reader = (await writer.response()).body!.getReader();
  expect(new TextDecoder().decode((await reader.read()).value)).toBe('\n\n');
  writer.write(EVENT);
  writer.end();
  expect(new TextDecoder().decode((await reader.read()).value)).toBe(EVENT);
});

test('an answer whose waiting is over does not end that of a younger one', async () => {
  const old = new SseWriter({ onCancel() {} });
  const oldAnswer = old.response();
  await Bun.sleep(30);
  const young = new SseWriter({ onCancel() {} });
  const beganMs = performance.now();
  await young.response();
  expect(performance.now() - beganMs).toBeGreaterThan(45);
  await oldAnswer;
  for (const writer of [old, young]) writer.cancel();
});

test('head, events and end that come together arrive as one piece', async () => {
  using server = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    async fetch() {
      const writer = new SseWriter({ onCancel() {} });
      const answering = writer.response();
      await Bun.sleep(0);
      writer.write(EVENT);
      writer.write(EVENT);
      writer.end();
      return answering;
    },
  });
  const first = Promise.withResolvers<string>();
  const client = await Bun.connect({
    hostname: '127.0.0.1',
    port: server.port!,
    socket: {
      data: (_, bytes) => first.resolve(bytes.toString()),
      open: (socket) => void socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
    },
  });
  const piece = await first.promise;
  client.terminate();
  expect(piece).toStartWith('HTTP/1.1 200 OK\r\n');
  expect(piece).toContain(EVENT + EVENT);
  expect(piece).toEndWith('\r\n0\r\n\r\n');
});

test('an answer whose client has gone before its first event is called off', async () => {
  let isCancelled = false;
  const writer = new SseWriter({ onCancel: () => (isCancelled = true) });
  const answering = writer.response();
  writer.cancel();
  expect((await answering).status).toBe(200);
  expect(isCancelled).toBe(true);
});

test('a stream without events shows life by comments, until it ends', async () => {
  const writer = new SseWriter({ onCancel() {}, keepAliveMs: 1 });
  const reader = writer.body.getReader();
  let text = '';
  while (text.split(': keep-alive\n\n').length <= 3) text += new TextDecoder().decode((await reader.read()).value);
  writer.write(EVENT);
  writer.end();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    text += new TextDecoder().decode(part.value);
  }
  expect(text.trimStart()).toMatch(/^(: keep-alive\n\n){3,}data: x+\n\n$/);
});

test('nor is there a comment between events that come often enough, or unless it is asked for', async () => {
  for (const [keepAliveMs, pauseMs] of [
    [60_000, 1],
    [0, 20],
  ] as const) {
    const writer = new SseWriter({ onCancel() {}, keepAliveMs });
    const text = new Response(writer.body).text();
    for (let i = 0; i < 5; i++) {
      writer.write(EVENT);
      await Bun.sleep(pauseMs);
    }
    writer.end();
    expect((await text).trimStart()).toBe(EVENT.repeat(5));
  }
});
