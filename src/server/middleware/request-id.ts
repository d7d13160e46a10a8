import type { MiddlewareHandler } from 'hono';
import { chooseRequestId } from '../request-id.ts';
import type { ServerEnv } from '../server-context.ts';

/**
 * Gives each request an id for logs and error bodies: the client's X-Request-Id, else a random one.
 *
 * @param answers whether the answer carries it too (`--enable-request-id-headers`)
 */
export function requestId(answers: boolean): MiddlewareHandler<ServerEnv> {
  return async (c, next) => {
    const id = chooseRequestId(c.req.header('X-Request-Id'));
    c.set('requestId', id);
    await next();
    if (answers) c.res.headers.set('X-Request-Id', id);
  };
}
