import type { Socket } from 'bun';
import { HttpResponseParser } from './http-response-parser.ts';

interface Exchange {
  parser: HttpResponseParser;
  done: PromiseWithResolvers<{ status: number }>;
  /** A byte of the answer has come. */
  answered: boolean;
}

/** A connection that had been used before broke before anything of an answer came: servers close idle ones, and some close each after its answer without saying so. */
class StaleConnectionError extends Error {}

/** One HTTP/1.1 connection, kept open between requests. A load generator needs no more of HTTP, and the general client costs several times this. */
export class HttpConnection {
  private exchange: Exchange | null = null;
  private unsent: Uint8Array = new Uint8Array(0);
  private used = false;
  private closed = false;

  private constructor(
    private readonly origin: URL,
    private readonly socket: Socket<{ connection: HttpConnection | null }>,
  ) {}

  /** Throws the socket's error where nobody listens. */
  static async open(origin: URL): Promise<HttpConnection> {
    const isTls = origin.protocol === 'https:';
    const socket = await Bun.connect<{ connection: HttpConnection | null }>({
      hostname: origin.hostname.replace(/^\[|\]$/g, ''),
      port: Number(origin.port || (isTls ? 443 : 80)),
      tls: isTls,
      data: { connection: null },
      socket: {
        data: (socket, bytes) => socket.data.connection?.onData(bytes),
        drain: (socket) => socket.data.connection?.sendRest(),
        close: (socket) => socket.data.connection?.onClose(null),
        error: (socket, error) => socket.data.connection?.onClose(error),
      },
    });
    const connection = new HttpConnection(origin, socket);
    socket.data.connection = connection;
    return connection;
  }

  get isOpen(): boolean {
    return !this.closed;
  }

  /**
   * POSTs JSON; one request at a time. Settles when the whole answer is here; its body goes to `onBody` as it comes, in slices that are valid only during
   * the call. Rejects when the connection breaks.
   */
  post(
    path: string,
    headers: Readonly<Record<string, string>>,
    body: string,
    onBody: (bytes: Uint8Array) => void,
  ): Promise<{ status: number }> {
    if (this.closed) return Promise.reject(new Error('The connection is closed.'));
    if (this.exchange !== null) throw new Error('The connection has a request already.');
    const bytes = Buffer.from(body);
    const lines = [
      `POST ${path} HTTP/1.1`,
      `Host: ${this.origin.host}`,
      'Content-Type: application/json',
      `Content-Length: ${bytes.length}`,
      ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ];
    this.exchange = { parser: new HttpResponseParser(onBody), done: Promise.withResolvers(), answered: false };
    this.unsent = Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`), bytes]);
    this.sendRest();
    return this.exchange.done.promise;
  }

  close(): void {
    this.closed = true;
    this.socket.end();
  }

  private sendRest(): void {
    if (this.unsent.length === 0) return;
    const sent = this.socket.write(this.unsent);
    if (sent > 0) this.unsent = this.unsent.subarray(sent);
  }

  private onData(bytes: Uint8Array): void {
    const { exchange } = this;
    if (exchange === null) return;
    exchange.answered = true;
    try {
      if (!exchange.parser.push(bytes)) return;
    } catch (error) {
      this.onClose(error as Error);
      return;
    }
    this.exchange = null;
    this.used = true;
    if (exchange.parser.closes) this.close();
    exchange.done.resolve({ status: exchange.parser.status });
  }

  private onClose(error: Error | null): void {
    this.closed = true;
    const { exchange } = this;
    this.exchange = null;
    if (exchange === null) return;
    if (error === null && exchange.parser.endsWithConnection) {
      exchange.done.resolve({ status: exchange.parser.status });
    } else if (this.used && !exchange.answered) {
      exchange.done.reject(new StaleConnectionError());
    } else {
      exchange.done.reject(error ?? new Error('The server closed the connection before its answer was complete.'));
    }
  }
}

/** Connections to one origin that are used again; as many as there are requests at once. */
export class HttpPool {
  private readonly idle: HttpConnection[] = [];

  constructor(private readonly origin: URL) {}

  /** Sends again where the connection was closed meanwhile; rejects when one that is new breaks, or any that has begun its answer. */
  async post(
    path: string,
    headers: Readonly<Record<string, string>>,
    body: string,
    onBody: (bytes: Uint8Array) => void,
  ): Promise<{ status: number }> {
    for (;;) {
      const connection = this.takeIdle() ?? (await HttpConnection.open(this.origin));
      try {
        const answer = await connection.post(path, headers, body, onBody);
        if (connection.isOpen) this.idle.push(connection);
        return answer;
      } catch (error) {
        if (!(error instanceof StaleConnectionError)) throw error;
      }
    }
  }

  close(): void {
    for (const connection of this.idle) connection.close();
    this.idle.length = 0;
  }

  private takeIdle(): HttpConnection | undefined {
    let connection = this.idle.pop();
    while (connection?.isOpen === false) connection = this.idle.pop();
    return connection;
  }
}
