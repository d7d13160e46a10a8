import type { MiddlewareHandler } from 'hono';
import type * as v from 'valibot';
import type { ServerEnv } from '../server-context.ts';

type ObjectSchema = v.GenericSchema & { readonly entries: v.ObjectEntries };

/** What /openapi.json says of a route besides its path and method. */
export interface RouteDescription {
  /** One line, no full stop. */
  summary: string;
  /** The request's JSON body; several schemas where the body may be any of them. */
  body?: Readonly<Record<string, ObjectSchema>>;
  query?: ObjectSchema;
  /** Of the answer; default JSON. A list where a field of the body decides. */
  answers?: readonly AnswerType[];
}

export type AnswerType =
  | 'application/json'
  | 'text/event-stream'
  | 'application/octet-stream'
  | 'text/plain'
  | 'nothing';

const descriptions = new WeakMap<object, RouteDescription>();

/**
 * A handler that only carries the description of the route that it stands in front of.
 *
 * @example
 * app.post('/detokenize', describeRoute({ summary: 'Ids to text', body: { DetokenizeRequest: schema } }), async (c) => …)
 */
export function describeRoute(description: RouteDescription): MiddlewareHandler<ServerEnv> {
  const handler: MiddlewareHandler<ServerEnv> = (_c, next) => next();
  descriptions.set(handler, description);
  return handler;
}

/** The description that a handler carries; undefined for any other handler. */
export function descriptionOf(handler: object): RouteDescription | undefined {
  return descriptions.get(handler);
}
