import { lstatSync, unlinkSync } from 'node:fs';
import type { FrontendConfig } from '../../config/bao-config.ts';
import { ConfigError } from '../../config/config-error.ts';
import { beforeEnd } from '../generation/sse-writer.ts';
import { certificatesOf } from './certificates.ts';

export type FetchHandler = (request: Request, server: Bun.Server<undefined>) => Response | Promise<Response>;

/** A bound socket; until `setHandler` every request gets the answer of the handler that it was opened with. */
export interface Listener {
  /** "http://localhost:8000" or "unix:/run/bao.sock". */
  readonly url: string;
  readonly port: number | null;
  setHandler(handler: FetchHandler): void;
  /** Stops accepting; with `closeActive` open connections are cut too. */
  stop(closeActive: boolean): Promise<void>;
}

/**
 * Binds the address of `--host`/`--port` or `--uds`. Several threads may share a port with `reusePort`.
 * Throws ConfigError when the address can't be bound.
 */
export function listen(
  frontend: FrontendConfig,
  handler: FetchHandler,
  options: { reusePort: boolean; port?: number },
): Listener {
  let current = handler;
  const certificates = certificatesOf(frontend);
  const serve = (port: number, tls: Bun.TLSOptions | undefined) => {
    const common = {
      fetch: async (request: Request, server: Bun.Server<undefined>) => {
        // An answer may be silent for long while its request waits in the queue. The body has a deadline of its own.
        server.timeout(request, 0);
        const response = await current(withWholeUrl(request), server);
        beforeEnd(response, () => server.timeout(request, frontend.httpTimeoutKeepAlive));
        return response;
      },
      // Bun would refuse a larger body without a word; the routes refuse it with the error of --request-body-limit.
      maxRequestBodySize: Number.MAX_SAFE_INTEGER,
      development: false,
      tls,
    };
    return frontend.uds === null
      ? Bun.serve({
          ...common,
          hostname: frontend.host ?? '0.0.0.0',
          port,
          reusePort: options.reusePort,
          idleTimeout: frontend.httpTimeoutKeepAlive,
        })
      : Bun.serve({ ...common, unix: frontend.uds });
  };
  const wantedPort = options.port ?? frontend.port;
  try {
    const servers = [serve(wantedPort, certificates?.read())];
    const port = servers[0]!.port ?? null;
    const stopWatching = frontend.enableSslRefresh
      ? certificates?.watch((tls) => {
          // A listener can't change its certificate: a second one takes its place at the same port, and what is connected stays.
          servers.unshift(serve(port!, tls));
          servers[1]!.stop(false);
        })
      : undefined;
    return {
      url: describe(frontend, port),
      port,
      setHandler: (next) => {
        current = next;
      },
      stop: async (closeActive) => {
        stopWatching?.();
        await Promise.all(servers.map((server) => server.stop(closeActive)));
      },
    };
  } catch (error) {
    throw bindError(error, frontend, wantedPort);
  }
}

/** Without a Host header (HTTP/1.0), or with an odd one, Bun's URL is a path or nothing that can be parsed. No route depends on the host. */
function withWholeUrl(request: Request): Request {
  const { url } = request;
  if (URL.canParse(url)) return request;
  return new Request(`http://localhost${url.replace(/^https?:\/\/[^/]*/, '')}`, request);
}

/** Fails like `listen` when somebody has the port, also where that server would share it. */
export async function probePort(frontend: FrontendConfig): Promise<void> {
  await listen(frontend, () => new Response(null, { status: 503 }), { reusePort: false }).stop(true);
}

/**
 * A socket file that a killed server left behind would make the address look taken. One that someone listens on stays, and so does a file that is no
 * socket: binding then fails.
 */
export async function removeStaleSocket(path: string): Promise<void> {
  if (!lstatSync(path, { throwIfNoEntry: false })?.isSocket()) return;
  try {
    const connection = await Bun.connect({ unix: path, socket: { data() {} } });
    connection.end();
  } catch {
    unlinkSync(path);
  }
}

function describe(frontend: FrontendConfig, port: number | null): string {
  if (frontend.uds !== null) return `unix:${frontend.uds}`;
  const host =
    frontend.host === null || frontend.host === '0.0.0.0' || frontend.host === '::' ? 'localhost' : frontend.host;
  const scheme = frontend.sslKeyfile === null ? 'http' : 'https';
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

function bindError(error: unknown, frontend: FrontendConfig, port: number): ConfigError {
  const address = frontend.uds ?? `${frontend.host ?? '0.0.0.0'}:${port}`;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === 'EADDRINUSE') {
    return new ConfigError(
      `${address} is in use already: stop what listens there, or choose another with ${frontend.uds === null ? '--port' : '--uds'}.`,
    );
  }
  return new ConfigError(`The server can't listen on ${address}: ${message}`);
}
