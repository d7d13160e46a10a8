import { afterEach, describe, expect, test } from 'bun:test';
import { CHAT, COMPLETIONS, messages, type TestServer, testServer } from './http.ts';

const long = { messages, max_tokens: 1000 };
const script = () => ({ tokenIds: Array<number>(1000).fill(298) });

/** Waits for what the event loop brings, without a clock. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

describe('a client that leaves frees what its requests hold', () => {
  test('before the answer', async () => {
    const { engine, post } = await testServer({ manual: true, script });
    const controller = new AbortController();
    const answer = post(CHAT, long, { signal: controller.signal });
    await until(() => engine.numUnfinishedRequests === 1);
    engine.step();
    controller.abort();
    expect(engine.aborted).toEqual([engine.requests[0]!.requestId]);
    expect((await answer).status).toBe(499);
  });

  test('in a stream, by cancelling its body', async () => {
    const { engine, post } = await testServer({ manual: true, script });
    const reader = (await post(CHAT, { ...long, stream: true })).body!.getReader();
    const first = reader.read();
    engine.step();
    await first;
    await reader.cancel();
    expect(engine.aborted).toHaveLength(1);
    engine.step();
  });

  test('all prompts of a completion', async () => {
    const { engine, post } = await testServer({ manual: true, script });
    const controller = new AbortController();
    await post(COMPLETIONS, { prompt: ['a', 'b', 'c'], max_tokens: 1000, stream: true }, { signal: controller.signal });
    expect(engine.numUnfinishedRequests).toBe(3);
    controller.abort();
    expect(engine.aborted).toHaveLength(3);
  });

  test('after the end nothing is aborted', async () => {
    const { engine, post } = await testServer({ script });
    const controller = new AbortController();
    const response = await post(CHAT, { messages, max_tokens: 2, stream: true }, { signal: controller.signal });
    await response.text();
    controller.abort();
    expect(engine.aborted).toEqual([]);
  });
});

describe('over a socket', () => {
  let listener: Bun.Server<undefined> | null = null;
  afterEach(() => listener?.stop(true));

  function listen({ app }: TestServer): string {
    listener = Bun.serve({ port: 0, fetch: (request, server) => app.fetch(request, { server }), idleTimeout: 0 });
    return `http://localhost:${listener.port}`;
  }

  test('events arrive as they are made, and a closed connection aborts', async () => {
    const server = await testServer({ manual: true, script });
    const controller = new AbortController();
    const response = await fetch(listen(server) + CHAT, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ ...long, stream: true }),
      signal: controller.signal,
    });
    const reader = response.body!.getReader();
    const readText = async () => new TextDecoder().decode((await reader.read()).value);
    // The head has come before the first token.
    expect((await readText()).trim()).toBe('');
    server.engine.step();
    expect(await readText()).toContain('"role":"assistant"');
    controller.abort();
    await until(() => server.engine.aborted.length === 1);
    server.engine.step();
    expect((await fetch(`${listener!.url}health`)).status).toBe(200);
  });

  test('a closed connection aborts an answer in one piece too', async () => {
    const server = await testServer({ manual: true, script });
    const controller = new AbortController();
    const answer = fetch(listen(server) + CHAT, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(long),
      signal: controller.signal,
    });
    const failure = answer.catch((error: Error) => error.name);
    await until(() => server.engine.numUnfinishedRequests === 1);
    controller.abort();
    expect(await failure).toBe('AbortError');
    await until(() => server.engine.aborted.length === 1);
  });

  test('100 streams at once, each with its own text', async () => {
    const server = await testServer({
      script: ({ promptTokenIds }) => ({ tokenIds: Array<number>(50).fill(promptTokenIds[0]!) }),
    });
    const url = listen(server) + COMPLETIONS;
    const texts = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => {
        const body = JSON.stringify({ prompt: [300 + i], max_tokens: 50, stream: true });
        const response = await fetch(url, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
        const events = (await response.text()).split('\n\n').filter((event) => event.startsWith('data: {'));
        return events.map((event) => JSON.parse(event.slice(6)).choices[0].text).join('');
      }),
    );
    const { tokenizer } = server.engine;
    texts.forEach((text, i) => {
      expect(text).toBe(tokenizer!.decode(Array<number>(50).fill(300 + i), { skipSpecialTokens: true }));
    });
  });
});
