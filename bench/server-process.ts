import { join } from 'node:path';
import { ProcessGroup } from './process-group.ts';

const MAIN = join(import.meta.dir, '../src/main.ts');
const LOG_END_TIMEOUT_MS = 1000;

/** A line of a process's log and when it came, milliseconds after its start. */
export interface LoggedLine {
  ms: number;
  text: string;
}

/** A process that logs, with the times of its lines; its children are paused and ended with it. */
export class ServerProcess {
  readonly lines: LoggedLine[] = [];
  private readonly group: ProcessGroup<'pipe', 'pipe'>;
  private readonly ended: Promise<void>;
  private readonly waiting = new Set<() => void>();
  private exitCode: number | null = null;

  constructor(command: readonly string[], env: Readonly<Record<string, string>> = {}) {
    this.group = new ProcessGroup(command, { env: { ...process.env, ...env }, stdout: 'pipe', stderr: 'pipe' });
    const { child } = this.group;
    const read = Promise.all([this.read(child.stdout), this.read(child.stderr)]);
    this.ended = child.exited.then(async (code) => {
      // Its children may live on, and write to the same log.
      await Promise.race([read, Bun.sleep(LOG_END_TIMEOUT_MS)]);
      this.exitCode = code;
      this.tellWaiting();
    });
  }

  /** `bao serve` with these arguments, on a free port of the loopback. */
  static bao(args: readonly string[]): ServerProcess {
    return new ServerProcess([process.execPath, MAIN, 'serve', ...args, '--host', '127.0.0.1', '--port', '0']);
  }

  /** On the clock of `performance.now()`. */
  get started(): number {
    return this.group.started;
  }

  /** Settles when a line of the log matches. Rejects with the log's end when the process ends before. */
  logged(pattern: RegExp): Promise<RegExpMatchArray> {
    return new Promise((resolve, reject) => {
      const look = () => {
        for (const { text } of this.lines) {
          const match = text.match(pattern);
          if (match === null) continue;
          this.waiting.delete(look);
          resolve(match);
          return;
        }
        const failure = this.failure();
        if (failure === null) return;
        this.waiting.delete(look);
        reject(failure);
      };
      this.waiting.add(look);
      look();
    });
  }

  /** The end of the log of a process that has ended, else null. */
  failure(): Error | null {
    if (this.exitCode === null) return null;
    const end = this.lines.slice(-20).map(({ text }) => text);
    return new Error(`The server ended with code ${this.exitCode}:\n${end.join('\n')}`);
  }

  /** The same of one whose end may be about to be known: its connections break a moment before. */
  async failureWithin(ms: number): Promise<Error | null> {
    await Promise.race([this.ended, Bun.sleep(ms)]);
    return this.failure();
  }

  pause(): void {
    this.group.pause();
  }

  resume(): void {
    this.group.resume();
  }

  stop(): Promise<void> {
    return this.group.stop();
  }

  private async read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    let partial = '';
    for await (const bytes of stream) {
      const ms = performance.now() - this.group.started;
      const lines = (partial + decoder.decode(bytes, { stream: true })).split('\n');
      partial = lines.pop()!;
      for (const text of lines) this.lines.push({ ms, text });
      this.tellWaiting();
    }
  }

  private tellWaiting(): void {
    for (const look of [...this.waiting]) look();
  }
}

/** A port that is free now, for a server that can't choose one and say which. */
export function freePort(): number {
  const probe = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } });
  const { port } = probe;
  probe.stop(true);
  return port;
}

/** URL of a `bao serve` once it is ready. */
export async function baoUrl(server: ServerProcess): Promise<string> {
  const [, url] = await server.logged(/Ready after [\d.]+ s: (\S+)\/v1/);
  return url!.replace('localhost', '127.0.0.1');
}
