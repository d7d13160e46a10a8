import type { Context, MiddlewareHandler } from 'hono';
import { routePath } from 'hono/route';
import { logger } from '../../logging/logger.ts';
import type { HttpObservation } from '../../metrics/http-metrics.ts';
import type { ServerEnv } from '../server-context.ts';

const log = logger('access');

export interface ObserveOptions {
  /** Whether a request to a path gets a line in the access log. */
  logs(path: string): boolean;
  observeHttp?(observation: HttpObservation): void;
}

/** Writes the access log and counts requests. */
export function observe(options: ObserveOptions): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    const start = performance.now();
    await next();
    const durationMs = performance.now() - start;
    const { method, path } = c.req;
    if (options.logs(path)) {
      // As it was sent: the decoded path may hold line breaks.
      const { pathname, search } = new URL(c.req.url);
      const target = pathname + maskSecrets(search);
      log.info(`${clientAddress(c)} - "${method} ${target}" ${c.res.status}`, { ms: Math.round(durationMs) });
    }
    options.observeHttp?.({
      method,
      handler: handlerOf(c),
      status: c.res.status,
      durationMs,
      requestBytes: Number(c.req.header('Content-Length') ?? 0) || 0,
      responseBytes: Number(c.res.headers.get('Content-Length') ?? 0) || 0,
    });
  };
}

/** Keys belong into headers; some clients put them into the URL all the same. */
function maskSecrets(query: string): string {
  return query.replace(/([?&][^=&]*(?:key|token|secret|password)[^=&]*=)[^&]*/gi, '$1***');
}

function clientAddress(c: Context<ServerEnv>): string {
  const address = c.env?.server?.requestIP(c.req.raw) ?? null;
  return address === null ? 'local' : `${address.address}:${address.port}`;
}

function handlerOf(c: Context<ServerEnv>): string {
  const pattern = routePath(c, -1);
  return pattern === '' || pattern.endsWith('*') ? 'none' : pattern;
}
