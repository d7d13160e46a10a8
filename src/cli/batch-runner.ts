import { errorMessage } from './sse-reader.ts';

/** A line of the output file. */
export interface BatchAnswer {
  id: string;
  /** null where the line has none that could be read. */
  custom_id: string | null;
  response: { status_code: number; request_id: string; body: unknown };
  /** The error of `body`, null for an answer. */
  error: unknown;
}

interface BatchRequest {
  customId: string;
  url: string;
  body: Record<string, unknown>;
}

/** What is wrong with a line. */
class LineError extends Error {
  constructor(
    message: string,
    readonly customId: string | null,
  ) {
    super(message);
  }
}

/** Answers the lines of a batch file, many at once, and tells of them in the file's order. */
export class BatchRunner {
  /** @param concurrency requests at a time; at least 1 */
  constructor(
    private readonly fetch: (request: Request) => Promise<Response>,
    private readonly concurrency: number,
  ) {}

  /** Every line has its answer, whatever is wrong with it. */
  async run(lines: readonly string[], onAnswer: (answer: BatchAnswer) => void): Promise<{ numFailed: number }> {
    const waiting = new Map<number, BatchAnswer>();
    let next = 0;
    let told = 0;
    let numFailed = 0;
    const tell = () => {
      for (let answer = waiting.get(told); answer !== undefined; answer = waiting.get(told)) {
        waiting.delete(told++);
        if (answer.error !== null) numFailed++;
        onAnswer(answer);
      }
    };
    const work = async () => {
      while (next < lines.length) {
        const index = next++;
        waiting.set(index, await this.answer(lines[index]!));
        tell();
      }
    };
    await Promise.all(Array.from({ length: Math.min(this.concurrency, lines.length) }, work));
    return { numFailed };
  }

  private async answer(line: string): Promise<BatchAnswer> {
    const id = `bao-${crypto.randomUUID().replaceAll('-', '')}`;
    try {
      const request = parseLine(line);
      const { status, body } = await this.post(request);
      return batchAnswer(id, request.customId, status, body);
    } catch (error) {
      const customId = error instanceof LineError ? error.customId : null;
      const message = error instanceof Error ? error.message : String(error);
      const code = error instanceof LineError ? 400 : 500;
      const type = code === 400 ? 'BadRequestError' : 'InternalServerError';
      return batchAnswer(id, customId, code, { error: { message, type, param: null, code } });
    }
  }

  private async post({ customId, url, body }: BatchRequest): Promise<{ status: number; body: unknown }> {
    const response = await this.fetch(
      new Request(`http://localhost${url}`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify(body),
      }),
    );
    const text = await response.text();
    try {
      return { status: response.status, body: JSON.parse(text) };
    } catch {
      throw new LineError(`${url} has not answered with JSON.`, customId);
    }
  }
}

function batchAnswer(id: string, customId: string | null, status: number, body: unknown): BatchAnswer {
  const response = { status_code: status, request_id: `req-${id}`, body };
  const error = status < 400 ? null : { message: errorMessage(body) ?? `status ${status}`, code: status };
  return { id, custom_id: customId, response, error };
}

/** Throws LineError. */
function parseLine(line: string): BatchRequest {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch (error) {
    throw new LineError(`The line is not JSON: ${(error as Error).message}`, null);
  }
  if (!isObject(parsed)) throw new LineError('The line is not a JSON object.', null);
  const { custom_id: customId, method, url, body } = parsed;
  if (typeof customId !== 'string') throw new LineError('custom_id must be a string.', null);
  if (method !== 'POST') throw new LineError(`method must be "POST", not ${JSON.stringify(method)}.`, customId);
  if (typeof url !== 'string' || !url.startsWith('/')) {
    throw new LineError(`url must be a path such as /v1/chat/completions, not ${JSON.stringify(url)}.`, customId);
  }
  if (!isObject(body)) throw new LineError('body must be an object.', customId);
  if (body.stream) throw new LineError('stream is not possible in a batch.', customId);
  return { customId, url, body };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
