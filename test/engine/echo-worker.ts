import { RingReader, RingWriter } from '../../src/engine/ring.ts';

declare const self: Worker;

/** Sends back whatever arrives, until `count` messages went through. */
self.onmessage = (event: MessageEvent<{ there: SharedArrayBuffer; back: SharedArrayBuffer; count: number }>) => {
  const reader = new RingReader(event.data.there);
  const writer = new RingWriter(event.data.back);
  for (let count = 0; count < event.data.count || writer.pendingBytes > 0; ) {
    writer.flush();
    const message = reader.receive();
    if (message === null) continue;
    writer.send(message);
    count++;
  }
};
