import type { FrontendConfig } from '../../config/bao-config.ts';
import { ApiError, ClientDisconnectedError } from '../errors.ts';
import { BodyDeadline, PIECE_BYTES } from './body-deadline.ts';
import { type BodyIssue, bodyError } from './body-error.ts';
import { findJsonSyntaxError } from './json-syntax.ts';

/** Deeper than any real request, and shallow enough that recursive code behind (templates, JSON.stringify) is safe. */
const MAX_DEPTH = 128;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** In bytes, and in seconds for each 64 KiB. */
export type BodyLimits = Pick<FrontendConfig, 'requestBodyLimit' | 'requestBodyTimeout'>;

/**
 * The parsed JSON body of a request.
 *
 * @throws ApiError 400 for another content type, broken UTF-8, broken or too deeply nested JSON; 413 above the limit, before it is read
 *   where the client announced it, 408 for a body that comes too slowly
 */
export async function readJsonBody(request: Request, limits: BodyLimits): Promise<unknown> {
  const mediaType = request.headers.get('content-type')?.split(';', 1)[0]?.trim().toLowerCase();
  if (mediaType !== 'application/json') {
    throw bodyError([{ text: "Unsupported Media Type: Only 'application/json' is allowed" }]);
  }
  return parseJson(decodeUtf8(await readBytes(request, limits)));
}

async function readBytes(
  request: Request,
  { requestBodyLimit: limit, requestBodyTimeout }: BodyLimits,
): Promise<Uint8Array> {
  const announced = Number(request.headers.get('content-length') ?? 'NaN');
  if (announced > limit) throw tooLarge(limit);
  const deadline = new BodyDeadline(requestBodyTimeout);
  try {
    // One read is the quick way, and small bodies are most of them.
    const reading =
      announced <= PIECE_BYTES
        ? request.arrayBuffer().then((buffer) => new Uint8Array(buffer))
        : readStream(request, limit, deadline);
    return await Promise.race([reading, deadline.exceeded]);
  } catch (error) {
    if (request.signal.aborted) throw new ClientDisconnectedError();
    throw error;
  } finally {
    deadline.stop();
  }
}

async function readStream(request: Request, limit: number, deadline: BodyDeadline): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of request.body ?? []) {
    size += piece.byteLength;
    if (size > limit) throw tooLarge(limit);
    deadline.count(piece.byteLength);
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

function tooLarge(limit: number): ApiError {
  return new ApiError(
    413,
    'Request Entity Too Large',
    `The request body is larger than ${limit} bytes (--request-body-limit).`,
  );
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new ApiError(400, 'Bad Request', 'There was an error parsing the body: it is not valid UTF-8.');
  }
}

function parseJson(text: string): unknown {
  if (text === '') throw bodyError([missingBody]);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    const { message, position } = findJsonSyntaxError(text);
    throw bodyError([
      { type: 'json_invalid', loc: `body.${position}`, msg: 'JSON decode error', input: {}, ctx: { error: message } },
    ]);
  }
  if (isDeeperThan(body, MAX_DEPTH)) {
    throw new ApiError(400, 'Bad Request', `The request body is nested more than ${MAX_DEPTH} levels deep.`);
  }
  return body;
}

const missingBody: BodyIssue = { type: 'missing', loc: 'body', msg: 'Field required', input: null };

/** Goes no deeper than the limit. */
function isDeeperThan(value: unknown, limit: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  if (limit < 0) return true;
  const children: unknown[] = Array.isArray(value) ? value : Object.values(value);
  for (const child of children) if (isDeeperThan(child, limit - 1)) return true;
  return false;
}
