import type { MiddlewareHandler } from 'hono';
import { ApiError } from '../errors.ts';
import type { ServerEnv } from '../server-context.ts';

/** What an operator looks at is answered however much there is to do. */
const ALWAYS_ANSWERED = ['/health', '/ping', '/version', '/load', '/metrics'];

/**
 * With `--limit-concurrency`: 503 for what comes while so many requests are being read or answered, streams included. It is decided by the head
 * alone, before any of the body is read.
 */
export function limitConcurrency(limit: number): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    // The count has this request, too.
    const pending = c.env?.server?.pendingRequests ?? 0;
    if (pending <= limit || ALWAYS_ANSWERED.includes(c.req.path)) return next();
    const message = `The server reads and answers as many requests as it may at once (--limit-concurrency ${limit}). Please try again later.`;
    throw new ApiError(503, 'ServiceUnavailableError', message, null, { 'Retry-After': '1' });
  };
}
