import { EngineDeadError } from '../engine/engine-client.ts';
import { QueueFullError } from '../errors/queue-full-error.ts';
import { ValidationError } from '../errors/validation-error.ts';

/** OpenAI's error object, with vLLM's numeric code. */
export interface ErrorInfo {
  message: string;
  type: string;
  param: string | null;
  code: number;
}

/** An answer other than success that a handler decides on; the app turns it into `{"error": …}`. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly type: string,
    message: string,
    readonly param: string | null = null,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.name = 'ApiError';
  }

  get info(): ErrorInfo {
    return { message: this.message, type: this.type, param: this.param, code: this.status };
  }
}

/** The client went away: what is thrown reaches nobody, and nothing is logged. */
export class ClientDisconnectedError extends Error {
  constructor() {
    super('The client disconnected.');
    this.name = 'ClientDisconnectedError';
  }
}

/** A field that vLLM has and this server does not: refused by its name, never ignored. */
export function notSupported(field: string, detail = ''): ValidationError {
  return new ValidationError(
    `\`${field}\` is not supported by this server${detail === '' ? '' : `: ${detail}`}.`,
    field,
  );
}

/** nginx's status for a client that closed the connection; only logs see it. */
export const CLIENT_CLOSED_REQUEST = 499;

/**
 * The ApiError for whatever was thrown. An error that is nobody's plan (a bug) gives 500 with the request's id, and its own text stays in the log.
 *
 * @param running whether the request had been accepted: a dead engine is 500 for it, 503 for one that comes
 */
export function toApiError(error: unknown, requestId: string, running = false): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof ValidationError) return new ApiError(400, 'BadRequestError', error.message, error.param);
  if (error instanceof QueueFullError) {
    const retryAfter = String(Math.max(1, Math.ceil(error.retryAfterSeconds)));
    return new ApiError(503, 'ServiceUnavailableError', error.message, null, { 'Retry-After': retryAfter });
  }
  if (error instanceof EngineDeadError) {
    return running
      ? new ApiError(500, 'InternalServerError', error.message)
      : new ApiError(503, 'ServiceUnavailableError', error.message);
  }
  if (error instanceof ClientDisconnectedError) {
    return new ApiError(CLIENT_CLOSED_REQUEST, 'ClientClosedRequest', error.message);
  }
  return new ApiError(500, 'InternalServerError', `Internal server error (request id ${requestId}).`);
}

/** Whether `toApiError` has hidden what happened, so that the log must tell it. */
export function isUnexpected(error: unknown): boolean {
  const planned = [ApiError, ValidationError, QueueFullError, EngineDeadError, ClientDisconnectedError];
  return !planned.some((type) => error instanceof type);
}

/** @returns `{"error": …}` with the error's status and headers */
export function errorResponse(error: ApiError): Response {
  return Response.json({ error: error.info }, { status: error.status, headers: error.headers });
}

/** FastAPI's shape, which vLLM has for paths and methods that don't exist. */
export function detailResponse(status: number, detail: string, headers: Record<string, string> = {}): Response {
  return Response.json({ detail }, { status, headers });
}
