import type { FrontendConfig } from '../../config/bao-config.ts';
import { ApiError, ClientDisconnectedError } from '../errors.ts';
import { BodyDeadline, PIECE_BYTES } from './body-deadline.ts';
import { type BodyIssue, bodyError } from './body-error.ts';
import { findJsonSyntaxError } from './json-syntax.ts';

/** Deeper than any real request, and shallow enough that recursive code behind (templates, JSON.stringify) is safe. */
const MAX_DEPTH = 128;
/** More than any real request has: what is behind takes some 10 µs for each message or tool, during which no other client is served. */
const MAX_VALUES = 1 << 18;

const [QUOTE, BACKSLASH, BRACE, BRACKET] = [0x22, 0x5c, 0x7b, 0x5b] as const;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** In bytes, and in seconds for each 64 KiB. */
export type BodyLimits = Pick<FrontendConfig, 'requestBodyLimit' | 'requestBodyTimeout'>;

/**
 * The parsed JSON body of a request.
 *
 * @throws ApiError 400 for another content type, broken UTF-8, JSON that is broken, too deeply nested or of too many parts; 413 above the limit, before it is read
 *   where the client announced it, 408 for a body that comes too slowly
 */
export async function readJsonBody(request: Request, limits: BodyLimits): Promise<unknown> {
  const mediaType = request.headers.get('content-type')?.split(';', 1)[0]?.trim().toLowerCase();
  if (mediaType !== 'application/json') {
    throw bodyError([{ text: "Unsupported Media Type: Only 'application/json' is allowed" }]);
  }
  const bytes = await readBytes(request, limits);
  checkNumParts(bytes);
  return parseJson(decodeUtf8(bytes));
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

/**
 * Refuses what {@link checkComplexity} would, before it is parsed: an object of a million names takes seconds. Strings and brackets that open are at
 * most twice the values, since a name is a string that has a value.
 */
function checkNumParts(bytes: Uint8Array): void {
  const most = 2 * MAX_VALUES;
  if (bytes.length <= most) return;
  let numParts = 0;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (byte !== QUOTE && byte !== BRACE && byte !== BRACKET) continue;
    if (++numParts > most) throw tooManyValues();
    if (byte === QUOTE) i = endOfString(bytes, i);
  }
}

/** Index of the quote that ends the string which begins at `start`, or of the body's end. */
function endOfString(bytes: Uint8Array, start: number): number {
  let end = bytes.indexOf(QUOTE, start + 1);
  while (end !== -1 && isEscaped(bytes, end)) end = bytes.indexOf(QUOTE, end + 1);
  return end === -1 ? bytes.length : end;
}

function isEscaped(bytes: Uint8Array, at: number): boolean {
  let first = at;
  while (bytes[first - 1] === BACKSLASH) first--;
  return (at - first) % 2 === 1;
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
  checkComplexity(body);
  return body;
}

const missingBody: BodyIssue = { type: 'missing', loc: 'body', msg: 'Field required', input: null };

/** Goes no further than the limits. Numbers in lists are not counted: token ids come by the million, and cost next to nothing. */
function checkComplexity(body: unknown): void {
  let numValues = 0;
  const visit = (value: unknown, depth: number): void => {
    if (++numValues > MAX_VALUES) throw tooManyValues();
    if (typeof value !== 'object' || value === null) return;
    if (depth > MAX_DEPTH) throw tooComplex(`is nested more than ${MAX_DEPTH} levels deep`);
    if (Array.isArray(value)) {
      for (const item of value) if (typeof item !== 'number') visit(item, depth + 1);
    } else {
      for (const key in value) visit((value as Record<string, unknown>)[key], depth + 1);
    }
  };
  visit(body, 0);
}

function tooManyValues(): ApiError {
  return tooComplex(`has more than ${MAX_VALUES} values besides numbers in lists`);
}

function tooComplex(how: string): ApiError {
  return new ApiError(400, 'Bad Request', `The request body ${how}.`);
}
