const EVENT_END = Buffer.from('\n\n');
const DATA = 'data:';

/** Cuts a stream of server-sent events, as OpenAI's servers write them: one `data:` line an event. */
export class SseParser {
  private partial: Buffer = Buffer.alloc(0);

  /** @param onData hears of the text behind `data:` of each event */
  constructor(private readonly onData: (data: string) => void) {}

  push(bytes: Uint8Array): void {
    let rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (this.partial.length > 0) rest = Buffer.concat([this.partial, rest]);
    let start = 0;
    for (let end = rest.indexOf(EVENT_END); end >= 0; end = rest.indexOf(EVENT_END, start)) {
      const event = rest.toString('utf8', start, end);
      start = end + EVENT_END.length;
      if (event.startsWith(DATA)) this.onData(event.slice(DATA.length).trimStart());
    }
    this.partial = Buffer.from(rest.subarray(start));
  }
}
