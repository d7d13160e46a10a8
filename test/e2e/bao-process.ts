import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dir, '../..');
/** Far above what a start takes anywhere; only a start that hangs meets it. */
const READY_TIMEOUT_MS = 120_000;

/** A real server process. */
export interface BaoProcess {
  /** "http://127.0.0.1:40123" */
  readonly url: string;
  readonly pid: number;
  /** All it has logged. */
  stderr(): string;
  /** Settles when the log has this. */
  logged(pattern: RegExp): Promise<RegExpMatchArray>;
  /** Of one that was started `slow`: from now on its steps take no longer than they need. */
  hurry(): void;
  kill(signal: NodeJS.Signals): void;
  readonly exited: Promise<number>;
  /** SIGTERM, and the exit code. */
  stop(): Promise<number>;
}

export interface StartOptions {
  env?: Record<string, string>;
  /** false: do not wait until it is ready. */
  waitUntilReady?: boolean;
  /**
   * An executor of the fault plugin, with steps that are slow until `hurry` is called: what runs does not end before the test has come to what it wants to
   * do to it.
   */
  slow?: 'slow' | 'crashing';
  /** Arguments for the address; default a free port on the loopback. */
  address?: string[];
}

/** Starts `bao serve ARGS`. Throws with its log when it ends before it is ready. */
export async function startBao(args: string[], options: StartOptions = {}): Promise<BaoProcess> {
  const address = options.address ?? ['--host', '127.0.0.1', '--port', '0'];
  const slow = options.slow === undefined ? null : slowExecutor(options.slow);
  const all = [...args, ...(slow?.flags ?? []), ...address];
  const child = Bun.spawn([process.execPath, join(ROOT, 'src/main.ts'), 'serve', ...all], {
    cwd: ROOT,
    env: { ...process.env, ...slow?.env, ...options.env },
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'pipe',
  });
  child.exited.then(() => slow?.end());
  let log = '';
  const listeners = new Set<() => void>();
  const reading = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) {
      log += decoder.decode(chunk, { stream: true });
      for (const listener of listeners) listener();
    }
  })();

  const logged = (pattern: RegExp) =>
    new Promise<RegExpMatchArray>((resolve, reject) => {
      const timer = setTimeout(() => finish(new Error(`No ${pattern} in the log:\n${log}`)), READY_TIMEOUT_MS);
      const look = () => {
        const match = log.match(pattern);
        if (match !== null) finish(match);
      };
      const finish = (result: RegExpMatchArray | Error) => {
        clearTimeout(timer);
        listeners.delete(look);
        if (result instanceof Error) reject(result);
        else resolve(result);
      };
      listeners.add(look);
      child.exited.then(async (code) => {
        await reading;
        look();
        finish(new Error(`The server ended with code ${code} before it logged ${pattern}:\n${log}`));
      });
      look();
    });

  let url = '';
  if (options.waitUntilReady !== false)
    url = (await logged(/Ready after [\d.]+ s: (\S+)\/v1/))[1]!.replace('localhost', '127.0.0.1');
  return {
    url,
    pid: child.pid,
    stderr: () => log,
    logged,
    hurry: () => slow?.end(),
    kill: (signal) => child.kill(signal),
    exited: child.exited.then(async (code) => {
      await reading;
      return code;
    }),
    stop: async () => {
      child.kill('SIGTERM');
      return child.exited;
    },
  };
}

function slowExecutor(name: string): { flags: string[]; env: Record<string, string>; end(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'bao-slow-'));
  const file = join(folder, 'slow');
  writeFileSync(file, '');
  return {
    flags: ['--plugin', 'test/fixtures/fault-plugin.ts', '--distributed-executor-backend', name],
    env: { SLOW_WHILE: file },
    end: () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** POSTs JSON and gives status and parsed body. */
export async function post(
  url: string,
  body: unknown,
  init: RequestInit = {},
): Promise<{ status: number; body: unknown }> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...init,
  });
  return { status: response.status, body: await response.json() };
}

export interface CompletionBody {
  choices: { text: string; token_ids?: number[]; finish_reason: string | null; index: number }[];
  usage: {
    prompt_tokens: number;
    completion_tokens: number;
    total_tokens: number;
    prompt_tokens_details?: { cached_tokens?: number };
  };
}

/** A completion that must succeed. */
export async function complete(server: BaoProcess, request: Record<string, unknown>): Promise<CompletionBody> {
  const { status, body } = await post(`${server.url}/v1/completions`, request);
  if (status !== 200) throw new Error(`status ${status}: ${JSON.stringify(body)}`);
  return body as CompletionBody;
}

/** Waits until so many requests wait; the test's deadline ends it otherwise. */
export async function untilWaiting(server: BaoProcess, count: number): Promise<void> {
  const numWaiting = async () => {
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    return Number(/^vllm:num_requests_waiting\{[^}]*\} (\d+)/m.exec(metrics)?.[1]);
  };
  while ((await numWaiting()) !== count) await Bun.sleep(1);
}

/** Sends each to a server in development mode whose engine is paused meanwhile: all begin in one step, however slowly they arrive. */
export async function inOneStep<T>(server: BaoProcess, sends: readonly (() => Promise<T>)[]): Promise<T[]> {
  const call = async (path: string) => {
    const { ok, status } = await fetch(server.url + path, { method: 'POST' });
    if (!ok) throw new Error(`${path} gave ${status}`);
  };
  await call('/sleep?level=0&mode=keep');
  const answers = sends.map((send) => send());
  await untilWaiting(server, answers.length);
  await call('/wake_up');
  return Promise.all(answers);
}
