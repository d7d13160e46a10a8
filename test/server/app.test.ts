import { afterEach, describe, expect, test } from 'bun:test';
import { EngineDeadError } from '../../src/engine/engine-client.ts';
import { QueueFullError } from '../../src/errors/queue-full-error.ts';
import { configureLogging, type LoggingOptions } from '../../src/logging/logger.ts';
import type { HttpObservation } from '../../src/metrics/http-metrics.ts';
import { CHAT, COMPLETIONS, type Json, messages, sseEvents, testServer } from './http.ts';

const script = () => ({ tokenIds: [298, 454, 304] });
const chat = (fields: Json = {}) => ({ messages, max_tokens: 3, ...fields });

let logging: LoggingOptions | null = null;
/** Lines that the server logs from now on, until the test's end. */
function captureLog(level: LoggingOptions['level'] = 'info'): string[] {
  const lines: string[] = [];
  logging = configureLogging({ level, format: 'json', write: (line) => lines.push(line) });
  return lines;
}
afterEach(() => {
  if (logging !== null) configureLogging(logging);
  logging = null;
});

describe('status routes', () => {
  test('/health and /ping tell what the engine says', async () => {
    const server = await testServer();
    for (const path of ['/health', '/ping']) expect((await server.get(path)).status).toBe(200);
    expect((await server.post('/ping', {})).status).toBe(200);
    server.engine.status = { healthy: false, reason: 'engine core 1 does not turn' };
    const response = await server.get('/health');
    expect(response.status).toBe(503);
    expect((await response.json()).error.message).toBe('engine core 1 does not turn');
  });

  test('/version, /metrics, routes of plugins', async () => {
    const server = await testServer(
      { flags: { apiKey: ['secret'] } },
      {
        serverInfo: { version: '9.8.7' },
        metrics: { contentType: 'text/plain; version=0.0.4', render: async () => 'up 1\n' },
        routes: (app) => app.get('/v1/plugin', (c) => c.text('hello')),
      },
    );
    expect(await (await server.get('/version')).json()).toEqual({ version: '9.8.7' });
    const metrics = await server.get('/metrics');
    expect(metrics.headers.get('content-type')).toBe('text/plain; version=0.0.4');
    expect(await metrics.text()).toBe('up 1\n');
    expect((await server.get('/v1/plugin')).status).toBe(401);
    expect(await (await server.get('/v1/plugin', { Authorization: 'Bearer secret' })).text()).toBe('hello');
  });

  test('/load counts what runs, with its flag', async () => {
    for (const [enableServerLoadTracking, expected] of [
      [true, 1],
      [false, 0],
    ] as const) {
      const server = await testServer({ manual: true, script, flags: { enableServerLoadTracking } });
      const load = async () => (await (await server.get('/load')).json()).server_load;
      const response = await server.post(CHAT, chat({ stream: true }));
      expect(await load()).toBe(expected);
      for (let i = 0; i < 3; i++) server.engine.step();
      await response.text();
      expect(await load()).toBe(0);
    }
  });

  test('/v1/models/{id}', async () => {
    const server = await testServer({ flags: { servedModelName: ['org/one', 'two'] } });
    const list = await (await server.get('/v1/models')).json();
    expect(list.data.map((model: Json) => model.id)).toEqual(['org/one', 'two']);
    expect((await (await server.get('/v1/models/org/one')).json()).id).toBe('org/one');
    const missing = await server.get('/v1/models/three');
    expect(missing.status).toBe(404);
    expect((await missing.json()).error).toMatchObject({ type: 'NotFoundError', param: 'model', code: 404 });
    const alias = await server.postJson(CHAT, chat({ model: 'two', max_tokens: 1 }));
    expect(alias.body.model).toBe('org/one');
  });

  test('/tokenizer_info with its flag', async () => {
    expect((await (await testServer()).get('/tokenizer_info')).status).toBe(404);
    const server = await testServer({ flags: { enableTokenizerInfoEndpoint: true } });
    expect(await (await server.get('/tokenizer_info')).json()).toMatchObject({ eos_token: '<|im_end|>' });
  });
});

describe('keys', () => {
  test('one of several keys opens /v1, the rest is open', async () => {
    const server = await testServer({ flags: { apiKey: ['first', 'second'] } });
    const statusWith = async (authorization?: string) =>
      (await server.get('/v1/models', authorization === undefined ? {} : { Authorization: authorization })).status;
    expect(await statusWith('Bearer first')).toBe(200);
    expect(await statusWith('bearer second')).toBe(200);
    for (const wrong of [
      undefined,
      'Bearer',
      'Bearer ',
      'Bearer firs',
      'Bearer first second',
      'Basic first',
      'first',
    ]) {
      expect(await statusWith(wrong), String(wrong)).toBe(401);
    }
    const refused = await server.get('/v1/models');
    expect(await refused.json()).toEqual({
      error: { message: expect.stringContaining('there is no API key'), type: 'Unauthorized', param: null, code: 401 },
    });
    expect(refused.headers.get('WWW-Authenticate')).toBe('Bearer');
    expect((await server.get('/health')).status).toBe(200);
    expect((await server.get('/v1/nope')).status).toBe(401);
  });

  test('no spelling of a path goes around', async () => {
    const server = await testServer({ flags: { apiKey: ['k'], rootPath: '/llm' } });
    for (const path of [
      '/llm/v1/models',
      '/%76%31/models',
      '/v1%2fmodels',
      '//v1/models',
      '/v1/../v1/models',
      '/./v1/models',
      '/llm//v1/models',
    ]) {
      expect((await server.get(path)).status, path).not.toBe(200);
    }
  });
});

test('--root-path: with and without it', async () => {
  const server = await testServer({ flags: { rootPath: '/llm/' } });
  for (const path of ['/health', '/llm/health', '/llm/v1/models', '/v1/models'])
    expect((await server.get(path)).status).toBe(200);
  expect((await server.get('/llmx/health')).status).toBe(404);
});

describe('CORS', () => {
  const preflight = (server: Awaited<ReturnType<typeof testServer>>, origin: string) =>
    server.app.fetch(
      new Request(`http://localhost${CHAT}`, {
        method: 'OPTIONS',
        headers: {
          Origin: origin,
          'Access-Control-Request-Method': 'POST',
          'Access-Control-Request-Headers': 'authorization',
        },
      }),
    );

  test('origins that are allowed, also with keys and for errors', async () => {
    const server = await testServer({ flags: { allowedOrigins: ['https://a.example'], apiKey: ['k'] } });
    const allowed = await preflight(server, 'https://a.example');
    expect(allowed.status).toBe(204);
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://a.example');
    expect(allowed.headers.get('access-control-allow-methods')).toContain('POST');
    expect(allowed.headers.get('access-control-allow-headers')).toBe('authorization');
    const refused = await server.get('/v1/models', { Origin: 'https://a.example' });
    expect(refused.status).toBe(401);
    expect(refused.headers.get('access-control-allow-origin')).toBe('https://a.example');
    const busy = { requestIP: () => null, pendingRequests: 3 };
    const limited = await testServer({ flags: { allowedOrigins: ['https://a.example'], limitConcurrency: 2 } });
    const request = new Request('http://localhost/v1/models', { headers: { Origin: 'https://a.example' } });
    const full = await limited.app.fetch(request, { server: busy });
    expect(full.status).toBe(503);
    expect(full.headers.get('access-control-allow-origin')).toBe('https://a.example');
    expect((await preflight(server, 'https://b.example')).headers.get('access-control-allow-origin')).toBeNull();
  });

  test('any origin; with credentials the one that asks', async () => {
    const any = await testServer({ flags: { allowedOrigins: ['*'] } });
    expect((await any.get('/health', { Origin: 'https://x.example' })).headers.get('access-control-allow-origin')).toBe(
      '*',
    );
    const credentials = await testServer({ flags: { allowedOrigins: ['*'], allowCredentials: true } });
    const response = await credentials.get('/health', { Origin: 'https://x.example' });
    expect(response.headers.get('access-control-allow-origin')).toBe('https://x.example');
    expect(response.headers.get('access-control-allow-credentials')).toBe('true');
  });

  test('off unless asked for', async () => {
    const server = await testServer();
    expect((await preflight(server, 'https://a.example')).status).toBe(405);
    expect(
      (await server.get('/health', { Origin: 'https://a.example' })).headers.get('access-control-allow-origin'),
    ).toBeNull();
  });
});

test('X-Request-Id comes back, or a new one, with the flag only', async () => {
  const server = await testServer({ script, flags: { enableRequestIdHeaders: true } });
  expect((await server.get('/health', { 'X-Request-Id': 'abc' })).headers.get('x-request-id')).toBe('abc');
  expect((await server.get('/health')).headers.get('x-request-id')).toMatch(/^[0-9a-f]{16}$/);
  const stream = await server.post(CHAT, chat({ stream: true }), { headers: { 'X-Request-Id': 'abc' } });
  expect(stream.headers.get('x-request-id')).toBe('abc');
  expect(sseEvents(await stream.text()).length).toBeGreaterThan(3);
  expect((await (await testServer()).get('/health')).headers.get('x-request-id')).toBeNull();
});

describe('failures', () => {
  test('a full queue is 503 with Retry-After', async () => {
    const server = await testServer();
    server.engine.refusal = new QueueFullError('12 requests are queued already.', 2.5);
    for (const stream of [false, true]) {
      const response = await server.post(CHAT, chat({ stream }));
      expect(response.status).toBe(503);
      expect(response.headers.get('retry-after')).toBe('3');
      expect((await response.json()).error).toMatchObject({ message: '12 requests are queued already.', code: 503 });
    }
  });

  test('a dead engine is 503 for what comes, 500 for what runs, an event in a stream', async () => {
    const server = await testServer({ manual: true, script });
    const running = server.post(CHAT, chat());
    const stream = await server.post(CHAT, chat({ stream: true }));
    while (server.engine.numUnfinishedRequests < 2) await Bun.sleep(0);
    server.engine.step();
    server.engine.fail(new EngineDeadError('engine core 0 has died'));
    const failed = await running;
    expect(failed.status).toBe(500);
    expect((await failed.json()).error).toMatchObject({
      message: 'engine core 0 has died',
      type: 'InternalServerError',
    });
    const events = sseEvents(await stream.text());
    expect(events.at(-2).error).toMatchObject({
      message: 'engine core 0 has died',
      type: 'InternalServerError',
      code: 500,
    });
    expect(events.at(-1)).toBe('[DONE]');
    server.engine.refusal = new EngineDeadError('engine core 0 has died');
    expect((await server.post(CHAT, chat())).status).toBe(503);
  });

  test('a bug is 500 with the request id, its stack in the log', async () => {
    const lines = captureLog();
    const server = await testServer();
    server.engine.refusal = new TypeError('undefined is not a function');
    const { status, body } = await server.postJson(CHAT, chat(), { 'X-Request-Id': 'find-me' });
    expect(status).toBe(500);
    expect(body.error.message).toContain('find-me');
    expect(body.error.message).not.toContain('undefined');
    expect(lines.join('')).toContain('undefined is not a function');
    expect(lines.join('')).toContain('find-me');
  });
});

describe('logs and metrics', () => {
  test('access log, unless off for the path', async () => {
    const lines = captureLog();
    const server = await testServer({
      flags: { disableUvicornAccessLog: false, disableAccessLogForEndpoints: ['/health'] },
    });
    await server.get('/health');
    await server.get('/v1/nope?x=1');
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0]!).text ?? lines[0]).toContain('GET /v1/nope?x=1');
    const silent = await testServer();
    await silent.get('/v1/models');
    expect(lines).toHaveLength(1);
  });

  test('requests with parameters, prompts cut to --max-log-len', async () => {
    const lines = captureLog('debug');
    const server = await testServer({ script, flags: { enableLogRequests: true, maxLogLen: 7 } });
    await server.post(COMPLETIONS, { prompt: 'The capital city', max_tokens: 3 });
    const text = lines.join('\n');
    expect(text).toContain('maxTokens');
    expect(text).toContain('The cap');
    expect(text).not.toContain('The capi');
  });

  test('HTTP observations have the pattern, not the path', async () => {
    const seen: HttpObservation[] = [];
    const metrics = {
      contentType: 'text/plain',
      render: async () => '',
      observeHttp: (one: HttpObservation) => seen.push(one),
    };
    const server = await testServer({ script }, { metrics });
    await server.post(CHAT, chat());
    await server.get('/v1/models/demo');
    await server.get('/invented/path');
    await server.get(CHAT);
    expect(seen.map(({ method, handler, status }) => [method, handler, status])).toEqual([
      ['POST', CHAT, 200],
      ['GET', '/v1/models/:id{.+}', 200],
      ['GET', 'none', 404],
      ['GET', CHAT, 405],
    ]);
  });
});

test('405 names the methods there are', async () => {
  const response = await (await testServer()).get(CHAT);
  expect(response.status).toBe(405);
  expect(response.headers.get('allow')).toBe('POST');
});
