import { createHash, timingSafeEqual } from 'node:crypto';
import type { MiddlewareHandler } from 'hono';
import { ApiError } from '../errors.ts';
import type { ServerEnv } from '../server-context.ts';

/** Paths that need a key; /health, /metrics and the like don't, as in vLLM, which leaves the model's use by /score and the like open too. */
const GUARDED_PREFIXES = [
  '/v1',
  '/v2',
  '/inference',
  '/generative_scoring',
  '/score',
  '/rerank',
  '/classify',
  '/pooling',
];

/** Where Anthropic's clients come with their key in `x-api-key`. */
const ANTHROPIC_PREFIX = '/v1/messages';

/**
 * With `--api-key`: a bearer token that is one of the keys, else 401. Preflight requests of browsers carry no key and pass.
 *
 * @param guardedPaths paths that need a key besides those with vLLM's prefixes
 */
export function requireApiKey(keys: readonly string[], guardedPaths: readonly string[]): MiddlewareHandler<ServerEnv> {
  const digests = keys.map(digest);
  const prefixes = [...GUARDED_PREFIXES, ...guardedPaths];
  return async (c, next) => {
    const isGuarded = c.req.method !== 'OPTIONS' && prefixes.some((prefix) => c.req.path.startsWith(prefix));
    if (!isGuarded) return next();
    const key = bearerToken(c.req.header('Authorization'));
    const otherKey = c.req.path.startsWith(ANTHROPIC_PREFIX) ? c.req.header('x-api-key') : undefined;
    if (!isKnown(key, digests) && !isKnown(otherKey, digests)) {
      throw new ApiError(401, 'Unauthorized', refusal(key ?? otherKey), null, { 'WWW-Authenticate': 'Bearer' });
    }
    await next();
  };
}

function refusal(key: string | undefined): string {
  const wanted = 'send one of the keys that the server was started with as `Authorization: Bearer KEY`.';
  return key === undefined
    ? `Unauthorized: there is no API key; ${wanted}`
    : `Unauthorized: the API key is wrong; ${wanted}`;
}

function bearerToken(header: string | undefined): string | undefined {
  return /^bearer (.*)$/i.exec(header ?? '')?.[1];
}

/** Digests of one length are compared, every one of them: the time taken tells nothing about the keys. */
function isKnown(key: string | undefined, digests: readonly Buffer[]): boolean {
  if (key === undefined) return false;
  const given = digest(key);
  let found = false;
  for (const known of digests) found = timingSafeEqual(given, known) || found;
  return found;
}

function digest(key: string): Buffer {
  return createHash('sha256').update(key).digest();
}
