import { createHash, timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import type { ServerEnv } from '../server-context.ts';

/** Paths that need a key; /health, /metrics and the like don't, as in vLLM. */
const GUARDED_PREFIXES = ['/v1', '/v2', '/inference'];

/** With `--api-key`: a bearer token that is one of the keys, else 401. Preflight requests of browsers carry no key and pass. */
export function requireApiKey(keys: readonly string[]): MiddlewareHandler<ServerEnv> {
  const digests = keys.map(digest);
  return async (c, next) => {
    const isGuarded = c.req.method !== 'OPTIONS' && GUARDED_PREFIXES.some((prefix) => c.req.path.startsWith(prefix));
    if (isGuarded && !isAuthorized(c.req.header('Authorization'), digests)) {
      return c.json({ error: 'Unauthorized' }, 401);
    }
    await next();
  };
}

/** Digests of one length are compared, every one of them: the time taken tells nothing about the keys. */
function isAuthorized(header: string | undefined, digests: readonly Buffer[]): boolean {
  const match = /^bearer (.*)$/i.exec(header ?? '');
  if (match === null) return false;
  const given = digest(match[1]!);
  let isKnown = false;
  for (const known of digests) isKnown = timingSafeEqual(given, known) || isKnown;
  return isKnown;
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
