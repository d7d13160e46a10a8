import { ByteWriter } from './byte-codec.ts';
import { decodeClientMessage, decodeCoreMessage, encodeClientMessage, encodeCoreMessage } from './codec.ts';
import { CoreStatus } from './core-status.ts';
import type { ClientMessage, CoreMessage } from './messages.ts';
import { createRing, RingReader, RingWriter } from './ring.ts';

/** A core's answers may pile up this far behind a slow client before the core takes no new requests from it. */
const MAX_PENDING_OUTPUT_BYTES = 16 << 20;
const REQUEST_RING_BYTES = 1 << 20;
const OUTPUT_RING_BYTES = 1 << 20;

/** One end of the connection between a client (an AsyncLLM) and a core, as it is posted to the thread that uses it. `port` is in the transfer list. */
export interface CoreLinkEnd {
  coreIndex: number;
  clientIndex: number;
  requests: SharedArrayBuffer;
  outputs: SharedArrayBuffer;
  /** One word: 1 while the client waits for a wake-up through the port. */
  clientSleeping: SharedArrayBuffer;
  status: SharedArrayBuffer;
  port: MessagePort;
}

/** Both ends of a new connection. Rings carry the data; the port only wakes the client, whose thread must not block. */
export function createCoreLink(
  coreIndex: number,
  clientIndex: number,
  status: CoreStatus,
): { client: CoreLinkEnd; core: CoreLinkEnd } {
  const channel = new MessageChannel();
  const shared = {
    coreIndex,
    clientIndex,
    requests: createRing(REQUEST_RING_BYTES),
    outputs: createRing(OUTPUT_RING_BYTES),
    clientSleeping: new SharedArrayBuffer(4),
    status: status.buffer,
  };
  return { client: { ...shared, port: channel.port1 }, core: { ...shared, port: channel.port2 } };
}

/** The core's end. */
export class ClientConnection {
  private readonly reader: RingReader;
  private readonly writer: RingWriter;
  private readonly sleeping: Int32Array;
  private readonly encoder = new ByteWriter();

  constructor(
    private readonly end: CoreLinkEnd,
    private readonly status: CoreStatus,
  ) {
    this.reader = new RingReader(end.requests);
    this.writer = new RingWriter(end.outputs);
    this.sleeping = new Int32Array(end.clientSleeping);
  }

  /** True when a message waits that the core would take now. */
  get hasInput(): boolean {
    return !this.reader.isEmpty && !this.isChoked;
  }

  /** The client is so far behind with reading that it gets no new work. */
  get isChoked(): boolean {
    return this.writer.pendingBytes > MAX_PENDING_OUTPUT_BYTES;
  }

  get hasPendingOutput(): boolean {
    return this.writer.hasPending;
  }

  /** The client has not taken everything that was sent. */
  get hasUnreadOutput(): boolean {
    return this.writer.unreadBytes > 0;
  }

  /** Never blocks; null when there is nothing, or the client must read first. */
  receive(): ClientMessage | null {
    if (this.isChoked) return null;
    const bytes = this.reader.receive();
    if (bytes === null) return null;
    const message = decodeClientMessage(bytes);
    if (message.type === 'add') this.status.countReceived(this.end.clientIndex);
    return message;
  }

  send(message: CoreMessage): void {
    this.writer.send(encodeCoreMessage(message, this.encoder));
    this.wakeClient();
  }

  flush(): void {
    if (!this.hasPendingOutput) return;
    this.writer.flush();
    this.wakeClient();
  }

  close(): void {
    this.end.port.close();
  }

  private wakeClient(): void {
    if (Atomics.exchange(this.sleeping, 0, 0) === 1) this.end.port.postMessage(0);
  }
}

/** The client's end: sends at once, hears of messages through `onMessage` on its event loop. */
export class CoreConnection {
  readonly status: CoreStatus;
  readonly coreIndex: number;
  private readonly reader: RingReader;
  private readonly writer: RingWriter;
  private readonly sleeping: Int32Array;
  private readonly encoder = new ByteWriter();
  private numAdded = 0;
  private retry: ReturnType<typeof setTimeout> | null = null;

  constructor(
    private readonly end: CoreLinkEnd,
    private readonly onMessage: (message: CoreMessage) => void,
  ) {
    this.coreIndex = end.coreIndex;
    this.status = new CoreStatus(end.status);
    this.reader = new RingReader(end.outputs);
    this.writer = new RingWriter(end.requests);
    this.sleeping = new Int32Array(end.clientSleeping);
    end.port.onmessage = () => this.drain();
    this.drain();
  }

  send(message: ClientMessage): void {
    if (message.type === 'add') this.numAdded++;
    this.writer.send(encodeClientMessage(message, this.encoder));
    this.status.ringDoorbell();
    if (this.writer.hasPending) this.flushLater();
  }

  /** Requests sent that the core has not taken from the ring yet. */
  get numUnreceived(): number {
    return (this.numAdded - this.status.received(this.end.clientIndex)) | 0;
  }

  close(): void {
    if (this.retry !== null) clearTimeout(this.retry);
    this.end.port.close();
  }

  private drain(): void {
    do {
      for (let bytes = this.reader.receive(); bytes !== null; bytes = this.reader.receive()) {
        this.onMessage(decodeCoreMessage(bytes));
      }
      Atomics.store(this.sleeping, 0, 1);
      // What came between the last look and the mark would be heard of too late.
    } while (!this.reader.isEmpty && Atomics.exchange(this.sleeping, 0, 0) === 1);
  }

  /** The request ring is full: the core is busy in a long step. Tries again until it has gone out. */
  private flushLater(): void {
    this.retry ??= setTimeout(() => {
      this.retry = null;
      const done = this.writer.flush();
      this.status.ringDoorbell();
      if (!done) this.flushLater();
    }, 5);
  }
}
