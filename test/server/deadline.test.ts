import { describe, expect, test } from 'bun:test';
import { CHAT, COMPLETIONS, messages, sseEvents, testServer } from './http.ts';

const flags = { requestTimeout: 0.02 };
/** An engine that never answers by itself. */
const silent = { manual: true, flags };

describe('--request-timeout', () => {
  test('ends a request that takes too long with 503, and frees what it held', async () => {
    const server = await testServer(silent);
    const response = await server.post(CHAT, { messages, max_tokens: 3 });
    expect(response.status).toBe(503);
    expect(response.headers.get('Retry-After')).toBe('1');
    expect((await response.json()).error.message).toContain('--request-timeout');
    expect(server.engine.aborted).toHaveLength(1);
  });

  test('ends a stream with an error event', async () => {
    const server = await testServer(silent);
    const response = await server.post(CHAT, { messages, max_tokens: 3, stream: true });
    server.engine.step();
    const events = sseEvents(await response.text());
    expect(events.slice(-2)).toEqual([{ error: expect.objectContaining({ code: 503 }) }, '[DONE]']);
    expect(server.engine.aborted).toHaveLength(1);
  });

  test('counts for a beam search as a whole', async () => {
    const server = await testServer(silent);
    const { status } = await server.postJson(COMPLETIONS, { prompt: [1], max_tokens: 3, use_beam_search: true, n: 2 });
    expect(status).toBe(503);
    expect(server.engine.aborted.length).toBe(server.engine.requests.length);
  });

  test('is nothing to one that ends in time', async () => {
    const server = await testServer({ flags: { requestTimeout: 60 } });
    expect((await server.post(CHAT, { messages, max_tokens: 3 })).status).toBe(200);
    expect(server.engine.aborted).toEqual([]);
  });
});
