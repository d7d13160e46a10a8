import { describe, expect, test } from 'bun:test';
import fc from 'fast-check';
import { createRing, RingReader, RingWriter } from '../../src/engine/ring.ts';

const CAPACITY = 1024;

function bytesOf(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 31 + seed) & 255);
}

describe('ring', () => {
  test('a capacity that is not a power of two is refused', () => {
    expect(() => createRing(1000)).toThrow('power of two');
  });

  test('messages of any size come out whole and in order, however reads and writes interleave', () => {
    const step = fc.oneof(fc.integer({ min: 0, max: 5000 }), fc.constant(null));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), fc.constantFrom(0, -4, -400, -4000), (steps, start) => {
        const buffer = createRing(CAPACITY);
        // Positions are u32: below 0 is shortly before they wrap around.
        const header = new Int32Array(buffer);
        for (const position of [0, 16]) header[position] = start;
        const writer = new RingWriter(buffer);
        const reader = new RingReader(buffer);
        const sent: Uint8Array[] = [];
        const received: Uint8Array[] = [];
        for (const [i, length] of steps.entries()) {
          if (length === null) {
            writer.flush();
            const message = reader.receive();
            if (message !== null) received.push(message);
          } else {
            const message = bytesOf(length, i);
            sent.push(message);
            // The caller may reuse its buffer.
            const scratch = message.slice();
            writer.send(scratch);
            scratch.fill(0);
          }
        }
        for (let done = false; !done; ) {
          done = writer.flush();
          for (let message = reader.receive(); message !== null; message = reader.receive()) received.push(message);
        }
        expect(received.map((each) => Buffer.from(each))).toEqual(sent.map((each) => Buffer.from(each)));
        expect(writer.pendingBytes).toBe(0);
      }),
    );
  });

  test('a full ring keeps what does not fit and says how much', () => {
    const buffer = createRing(CAPACITY);
    const writer = new RingWriter(buffer);
    for (let i = 0; i < 10; i++) writer.send(bytesOf(200, i));
    expect(writer.pendingBytes).toBeGreaterThan(0);
    expect(writer.flush()).toBe(false);
    const reader = new RingReader(buffer);
    let count = 0;
    for (let done = false; !done; ) {
      while (reader.receive() !== null) count++;
      done = writer.flush();
    }
    while (reader.receive() !== null) count++;
    expect(count).toBe(10);
  });

  test('positions wrap around 2^32', () => {
    const buffer = createRing(CAPACITY);
    const start = 0xffff_ff00;
    const header = new Int32Array(buffer);
    header[0] = start | 0;
    header[16] = start | 0;
    const writer = new RingWriter(buffer);
    const reader = new RingReader(buffer);
    for (let i = 0; i < 100; i++) {
      writer.send(bytesOf(77, i));
      expect(reader.receive()).toEqual(bytesOf(77, i));
    }
    expect(header[0]! >>> 0).toBeLessThan(start);
  });

  test('between threads: a Worker echoes 2,000 messages', async () => {
    const there = createRing(4096);
    const back = createRing(4096);
    const worker = new Worker(new URL('./echo-worker.ts', import.meta.url).href);
    worker.postMessage({ there, back, count: 2000 });
    const writer = new RingWriter(there);
    const reader = new RingReader(back);
    let sent = 0;
    let received = 0;
    while (received < 2000) {
      if (sent < 2000 && writer.pendingBytes === 0) writer.send(bytesOf(sent % 3000, sent++));
      writer.flush();
      const message = reader.receive();
      if (message === null) await new Promise<void>((resolve) => setImmediate(resolve));
      else expect(message).toEqual(bytesOf(received % 3000, received++));
    }
    worker.terminate();
  });
});

test('an empty message keeps its place behind those that wait', () => {
  const buffer = createRing(CAPACITY);
  const writer = new RingWriter(buffer);
  const reader = new RingReader(buffer);
  // Fills the ring to the last byte: four bytes of each are its length.
  for (let i = 0; i < 4; i++) writer.send(new Uint8Array(252));
  writer.send(new Uint8Array(0));
  const lengths = [reader.receive()!.length];
  writer.send(new Uint8Array(1));
  for (let message = reader.receive(); message !== null; message = reader.receive()) {
    lengths.push(message.length);
    writer.flush();
  }
  expect(lengths).toEqual([252, 252, 252, 252, 0, 1]);
});

test('what has gone out is not kept, even if the reader never catches up', () => {
  const buffer = createRing(CAPACITY);
  const writer = new RingWriter(buffer);
  const reader = new RingReader(buffer);
  for (let i = 0; i < 20; i++) writer.send(new Uint8Array(200));
  for (let i = 0; i < 10_000; i++) {
    writer.send(new Uint8Array(200));
    expect(reader.receive()).not.toBeNull();
    writer.flush();
  }
  expect(writer.pendingBytes).toBeGreaterThan(0);
  // biome-ignore lint/complexity/useLiteralKeys: private fields are reached by name, which only brackets may
  expect(writer['pending'].length).toBeLessThan(200);
});

test('the writer knows what the reader has not taken', () => {
  const buffer = createRing(1024);
  const writer = new RingWriter(buffer);
  const reader = new RingReader(buffer);
  expect(writer.unreadBytes).toBe(0);
  for (let i = 0; i < 8; i++) writer.send(new Uint8Array(200));
  // More than the ring holds: what waits for room counts too.
  expect(writer.unreadBytes).toBeGreaterThan(1024);
  for (let i = 0; i < 8; i++) {
    expect(reader.receive()).not.toBeNull();
    writer.flush();
  }
  expect(writer.unreadBytes).toBe(0);
});
