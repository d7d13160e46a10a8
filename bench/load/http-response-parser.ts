type State = 'head' | 'body' | 'chunk-size' | 'chunk-end' | 'trailer' | 'done';

const HEAD_END = Buffer.from('\r\n\r\n');
const LINE_END = Buffer.from('\r\n');

/** Reads one HTTP/1.1 response from the bytes of a connection, however they are cut. */
export class HttpResponseParser {
  status = 0;
  /** The server will close the connection after this answer. */
  closes = false;
  /** The body has no length of its own: it is all that comes until the connection closes. */
  endsWithConnection = false;
  private state: State = 'head';
  private isChunked = false;
  /** Bytes of the body or of the chunk that are still to come. */
  private remaining = 0;
  /** A line or head whose end has not come yet. */
  private partial: Buffer = Buffer.alloc(0);

  constructor(private readonly onBody: (bytes: Uint8Array) => void) {}

  /** True when the response is complete. Throws an Error for what is no HTTP. */
  push(bytes: Uint8Array): boolean {
    let rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (this.partial.length > 0) {
      rest = Buffer.concat([this.partial, rest]);
      this.partial = Buffer.alloc(0);
    }
    while (rest.length > 0 && this.state !== 'done') {
      const used = this.state === 'body' ? this.takeBody(rest) : this.takeLine(rest);
      if (used === 0) {
        // The bytes are the caller's only until it returns.
        this.partial = Buffer.from(rest);
        break;
      }
      rest = rest.subarray(used);
    }
    return this.state === 'done';
  }

  private takeBody(bytes: Buffer): number {
    if (this.endsWithConnection) {
      this.onBody(bytes);
      return bytes.length;
    }
    const used = Math.min(bytes.length, this.remaining);
    this.onBody(bytes.subarray(0, used));
    this.remaining -= used;
    if (this.remaining === 0) this.state = this.isChunked ? 'chunk-end' : 'done';
    return used;
  }

  /** Bytes used, 0 while the line (or the head) has no end. */
  private takeLine(bytes: Buffer): number {
    const end = this.state === 'head' ? HEAD_END : LINE_END;
    const at = bytes.indexOf(end);
    if (at < 0) return 0;
    this.onLine(bytes.toString('latin1', 0, at));
    return at + end.length;
  }

  private onLine(line: string): void {
    switch (this.state) {
      case 'head':
        this.onHead(line);
        break;
      case 'chunk-size':
        this.remaining = Number.parseInt(line, 16);
        if (!Number.isInteger(this.remaining)) throw new Error(`"${line}" is no size of an HTTP chunk.`);
        this.state = this.remaining > 0 ? 'body' : 'trailer';
        break;
      case 'chunk-end':
        this.state = 'chunk-size';
        break;
      default:
        if (line === '') this.state = 'done';
    }
  }

  private onHead(head: string): void {
    const status = /^HTTP\/1\.[01] (\d{3})/.exec(head);
    if (status === null) throw new Error(`The server does not speak HTTP/1.1: "${head.slice(0, 40)}".`);
    this.status = Number(status[1]);
    const header = (name: string) => new RegExp(`^${name}:\\s*(.*?)\\s*$`, 'im').exec(head)?.[1]?.toLowerCase();
    this.closes = header('connection') === 'close';
    const length = header('content-length');
    if (header('transfer-encoding') === 'chunked') {
      this.isChunked = true;
      this.state = 'chunk-size';
    } else if (length !== undefined) {
      this.remaining = Number(length);
      this.state = this.remaining > 0 ? 'body' : 'done';
    } else {
      this.endsWithConnection = true;
      this.state = 'body';
    }
  }
}
