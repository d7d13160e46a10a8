import { append } from '../flat-text.ts';

/**
 * The first event may be long in coming, and Bun sends a whole head with the first bytes of its body only: then these go ahead of it. Empty lines mean
 * nothing in an event stream, and two of them nothing to clients that split at them.
 */
const PRELUDE = '\n\n';

/**
 * Milliseconds that an answer waits for its first event, so that both are one write: a write is a good part of what a request costs. Bun writes most of a head as soon as it has the answer,
 * unless the body has bytes by then.
 */
const HEAD_DELAY_MS = 50;

/**
 * Characters that may wait for one client. Far above what a client that reads falls behind by; one that has stopped reading would otherwise keep
 * its whole answer, and an answer of many choices with log probabilities has gigabytes.
 */
const MAX_UNREAD = 64 * 2 ** 20;

/** A comment: no event to a client, a sign of life to whatever lies between. */
const KEEP_ALIVE = ': keep-alive\n\n';

/** By their bodies, for `beforeEnd`. */
const writers = new WeakMap<ReadableStream, SseWriter>();

/** Writers with text that waits for the end of the present tick; one microtask sends for all of them. */
const dirty: SseWriter[] = [];

function flushAll(): void {
  for (const writer of dirty.splice(0)) writer.flush();
}

/** Writers whose answer waits for their first event, and until when: in that order. One timer for all of them. */
const silent: { writer: SseWriter; deadlineMs: number }[] = [];

function breakSilence(): void {
  const nowMs = performance.now();
  const firstLater = silent.findIndex(({ deadlineMs }) => deadlineMs > nowMs);
  for (const { writer } of silent.splice(0, firstLater < 0 ? silent.length : firstLater)) writer.breakSilence();
  const next = silent[0];
  if (next !== undefined) setTimeout(breakSilence, next.deadlineMs - nowMs);
}

export interface SseWriterOptions {
  /** Called once when the client goes away before the end. */
  onCancel(): void;
  /** Called once when the client is more than `maxUnread` characters behind; what is written from here on is kept all the same, so stop. */
  onOverflow?(): void;
  maxUnread?: number;
  /** A stream that has nothing to say for so long sends a comment; 0: it stays silent. */
  keepAliveMs?: number;
}

/**
 * A response body of server-sent events. What is written in one tick goes out as one piece, and writing never waits: while the socket is full, text
 * is collected here. Bun's direct stream: text goes to the socket without a queue, a copy or a promise per chunk.
 */
export class SseWriter {
  readonly body: ReadableStream;
  #controller: ReadableStreamDirectController | null = null;
  #pending = '';
  #isDirty = false;
  /** The socket has not taken yet what was written last. */
  #isBlocked = false;
  #hasOverflowed = false;
  #ended = false;
  #closed = false;
  #hasWritten = false;
  #hasBegun = false;
  readonly #maxUnread: number;
  readonly #keepAlive: ReturnType<typeof setInterval> | undefined;
  /** There is something to send, or the client has gone. */
  readonly #ready = Promise.withResolvers<void>();
  readonly #done = Promise.withResolvers<void>();
  /** Called when all has been sent, before the body closes. */
  beforeEnd = () => {};

  constructor(private readonly options: SseWriterOptions) {
    const source: Bun.DirectUnderlyingSource = {
      type: 'direct',
      pull: (controller) => {
        this.#controller = controller;
        this.flush();
        return this.#done.promise;
      },
      cancel: () => this.cancel(),
    };
    // The DOM's types, which come first, don't know Bun's direct streams.
    this.body = new ReadableStream(source as unknown as UnderlyingSource);
    writers.set(this.body, this);
    this.#maxUnread = options.maxUnread ?? MAX_UNREAD;
    if (options.keepAliveMs) this.#keepAlive = setInterval(() => this.#showLife(), options.keepAliveMs);
  }

  /** A 200 answer with this body, as soon as it begins; proxies are told not to collect it. */
  async response(): Promise<Response> {
    if (silent.push({ writer: this, deadlineMs: performance.now() + HEAD_DELAY_MS }) === 1) {
      setTimeout(breakSilence, HEAD_DELAY_MS);
    }
    await this.#ready.promise;
    return new Response(this.body, { headers: SSE_HEADERS });
  }

  /** Complete events, each closed by an empty line. Ignored after the end or when the client has gone. */
  write(events: string): void {
    if (this.#ended || this.#closed) return;
    this.#hasWritten = true;
    this.#pending = append(this.#pending, events);
    this.#markDirty();
    if (this.#hasOverflowed || this.#pending.length <= this.#maxUnread) return;
    this.#hasOverflowed = true;
    this.options.onOverflow?.();
  }

  /** Nothing follows; the body closes once everything has been sent. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#keepAlive);
    this.#markDirty();
  }

  /** The client has gone. */
  cancel(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#keepAlive);
    this.#pending = '';
    this.#ready.resolve();
    this.#done.resolve();
    if (!this.#ended) this.options.onCancel();
  }

  /** Where no event has come by now. */
  breakSilence(): void {
    if (this.#hasBegun || this.#ended || this.#closed) return;
    this.#pending ||= PRELUDE;
    this.flush();
  }

  #showLife(): void {
    if (!this.#hasWritten && this.#pending === '') this.write(KEEP_ALIVE);
    this.#hasWritten = false;
  }

  #markDirty(): void {
    if (this.#isDirty) return;
    this.#isDirty = true;
    if (dirty.push(this) === 1) queueMicrotask(flushAll);
  }

  #waitFor(written: Promise<unknown>): void {
    this.#isBlocked = true;
    written.then(
      () => {
        this.#isBlocked = false;
        this.flush();
      },
      () => this.cancel(),
    );
  }

  /** Sends what waits, if the body is being read; otherwise its first read does. */
  flush(): void {
    this.#isDirty = false;
    if (!this.#hasBegun) {
      this.#hasBegun = true;
      this.#ready.resolve();
    }
    if (this.#closed || this.#controller === null || this.#isBlocked) return;
    if (this.#pending !== '') {
      const text = this.#pending;
      this.#pending = '';
      const written = this.#controller.write(text);
      this.#controller.flush();
      if (written instanceof Promise) {
        this.#waitFor(written);
        return;
      }
    }
    if (this.#ended) {
      this.#closed = true;
      this.beforeEnd();
      this.#controller.end();
      this.#done.resolve();
    }
  }
}

/** Calls back before the last byte of an answer: of an event stream when all has been sent, of any other at once. */
export function beforeEnd(response: Response, callback: () => void): void {
  const isStream = response.headers.get('Content-Type')?.startsWith('text/event-stream') === true;
  // Only a stream's body is looked at: to ask for another one's makes a stream of it.
  const writer = isStream && response.body !== null ? writers.get(response.body) : undefined;
  if (writer !== undefined) writer.beforeEnd = callback;
  else if (!isStream) callback();
}

export const SSE_DONE = 'data: [DONE]\n\n';

/** Made once: each answer takes a copy. */
const SSE_HEADERS = new Headers({
  'Content-Type': 'text/event-stream; charset=utf-8',
  'Cache-Control': 'no-cache',
  'X-Accel-Buffering': 'no',
});
