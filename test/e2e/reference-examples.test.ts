import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { typedEvents, withWholeDeltas } from '../fixtures/typed-events.ts';
import examples from '../reference/examples.json';
import reasoningExamples from '../reference/examples-reasoning.json';
import { type BaoProcess, startBao } from './bao-process.ts';

/**
 * Real answers of vLLM to the demo model, recorded in float32, against this server: texts, token counts, finish reasons, statuses and
 * errors equal, log probabilities close.
 */
interface Example {
  request: { method: string; path: string; body: unknown };
  status: number;
  type: string;
  body: unknown;
}

const ROUTES = new Set([
  '/v1/models',
  '/version',
  '/v1/chat/completions',
  '/v1/completions',
  '/v1/responses',
  '/v1/messages',
  '/v1/messages/count_tokens',
  '/tokenize',
  '/detokenize',
  '/v1/nope',
]);
const casesOf = (recorded: unknown) =>
  Object.entries(recorded as Record<string, Example>).filter(([, { request }]) => ROUTES.has(request.path));

const FLAGS = [
  ...['--enable-auto-tool-choice', '--tool-call-parser', 'hermes'],
  ...['--enable-lora', '--lora-modules', 'pirate=models/demo-pirate'],
];

/** What is different from one answer to the next, or is this server's own. */
const VOLATILE = new Set([
  'id',
  'item_id',
  'created',
  'created_at',
  'signature',
  'system_fingerprint',
  'permission',
  'owned_by',
  'root',
  'version',
  'message',
]);

/** Recorded members that are null may be absent; others are equal, numbers of log probabilities within the tolerance. */
function expectLike(actual: unknown, recorded: unknown, tolerance: number, path = ''): void {
  if (recorded === null || recorded === undefined) {
    // OpenAI's description wants a list of log probabilities, which may be empty.
    const isEmptyList = path.endsWith('.logprobs') && (actual as unknown[] | undefined)?.length === 0;
    expect(isEmptyList ? null : (actual ?? null), path).toBeNull();
  } else if (typeof recorded === 'number' && typeof actual === 'number' && !Number.isInteger(recorded)) {
    expect(Math.abs(actual - recorded), `${path}: ${actual} against ${recorded}`).toBeLessThanOrEqual(tolerance);
  } else if (Array.isArray(recorded)) {
    expect(Array.isArray(actual), path).toBe(true);
    expect((actual as unknown[]).length, path).toBe(recorded.length);
    recorded.forEach((item, i) => {
      expectLike((actual as unknown[])[i], item, tolerance, `${path}[${i}]`);
    });
  } else if (typeof recorded === 'object') {
    expect(typeof actual, path).toBe('object');
    for (const [key, value] of Object.entries(recorded)) {
      // The message of an answer is content, that of an error may say it better.
      if (VOLATILE.has(key) && typeof value !== 'object') continue;
      if (key === 'permission') continue;
      const member = (actual as Record<string, unknown>)[key];
      if (key === 'rank') expectRank(member as number, value as number, tolerance, `${path}.${key}`);
      else expectLike(member, value, tolerance, `${path}.${key}`);
    }
  } else {
    expect(actual, path).toEqual(recorded);
  }
}

/** Unlikely tokens lie close together: rounding moves them by a few ranks. */
function expectRank(actual: number, recorded: number, tolerance: number, path: string): void {
  expect(Math.abs(actual - recorded), `${path}: ${actual} against ${recorded}`).toBeLessThanOrEqual(
    recorded * tolerance,
  );
}

function sseEvents(text: string): unknown[] {
  if (text.includes('event: ')) return withWholeDeltas(typedEvents(text));
  return text
    .split('\n\n')
    .filter((event) => event.startsWith('data: '))
    .map((event) => (event === 'data: [DONE]' ? '[DONE]' : JSON.parse(event.slice(6))));
}

function requestBody(body: unknown): string {
  if (body === 'a prompt of 6,000 words') {
    return JSON.stringify({ model: 'demo', prompt: 'word '.repeat(6000), temperature: 0, max_tokens: 24 });
  }
  return typeof body === 'string' ? body : JSON.stringify(body);
}

for (const [what, cases, dtype, tolerance, flags] of [
  ['recorded answers', casesOf(examples), 'float32', 0.005, FLAGS],
  ['recorded answers', casesOf(examples), 'bfloat16', 0.05, FLAGS],
  ['answers with reasoning', casesOf(reasoningExamples), 'float32', 0.005, [...FLAGS, '--reasoning-parser', 'qwen3']],
] as const) {
  describe(`${what}, ${dtype}`, () => {
    let server: BaoProcess;
    beforeAll(async () => {
      server = await startBao(['demo', '--dtype', dtype, '--generation-config', 'vllm', ...flags]);
    });
    afterAll(() => server.stop());

    test.each(cases)('%s', async (_, { request, status, type, body }) => {
      const response = await fetch(server.url + request.path, {
        method: request.method,
        headers: { 'Content-Type': 'application/json' },
        body: request.method === 'GET' ? undefined : requestBody(request.body),
      });
      expect(response.status).toBe(status);
      expect(response.headers.get('content-type')?.toLowerCase()).toContain(type.split(';')[0]!);
      if (type.startsWith('text/event-stream')) {
        expectLike(sseEvents(await response.text()), sseEvents(body as string), tolerance);
      } else {
        expectLike(await response.json(), body, tolerance);
      }
    });
  });
}
