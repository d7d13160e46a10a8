import type { MiddlewareHandler } from 'hono';
import { cors as honoCors } from 'hono/cors';
import type { FrontendConfig } from '../../config/bao-config.ts';
import type { ServerEnv } from '../server-context.ts';

const ALL_METHODS = ['DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH', 'POST', 'PUT'];

/** CORS as the operator's flags say. With credentials, "*" is the origin that asks: browsers refuse the wildcard then. */
export function cors(config: FrontendConfig): MiddlewareHandler<ServerEnv> {
  const { allowedOrigins, allowedMethods, allowedHeaders, allowCredentials } = config;
  const allowsAny = allowedOrigins.includes('*');
  return honoCors({
    origin: (origin) => {
      if (allowsAny && !allowCredentials) return '*';
      return allowsAny || allowedOrigins.includes(origin) ? origin : null;
    },
    allowMethods: allowedMethods.includes('*') ? ALL_METHODS : allowedMethods,
    // Without a list, hono answers with the headers that the browser asks for.
    allowHeaders: allowedHeaders.includes('*') ? [] : allowedHeaders,
    credentials: allowCredentials,
    exposeHeaders: ['X-Request-Id'],
    maxAge: 600,
  });
}
