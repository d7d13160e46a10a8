import { afterAll, beforeAll, expect, test } from 'bun:test';
import { type BaoProcess, startBao } from './bao-process.ts';

const KEY = 'sk-key-of-the-operator';
const WRONG = 'sk-key-of-a-stranger';
const HUB_TOKEN = 'hf_token-of-the-operator';

let server: BaoProcess;
beforeAll(async () => {
  server = await startBao(
    [
      ...['demo', '--api-key', KEY, '--log-level', 'debug', '--enable-log-requests', '--max-log-len', '12'],
      ...['--server-dev-mode', '--enable-logging-iteration-details', '--log-slow-steps', '0'],
      ...['--disable-access-log-for-endpoints', '/health,/metrics'],
    ],
    { env: { HF_TOKEN: HUB_TOKEN } },
  );
});
afterAll(() => server.stop());

const get = (path: string, key: string) =>
  fetch(`${server.url}${path}`, { headers: { Authorization: `Bearer ${key}` } });
const ask = (path: string, body: object, headers: Record<string, string>) =>
  fetch(`${server.url}${path}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...headers },
    body: JSON.stringify(body),
  });

test('the log has requests, steps and accesses, and no secret, answer or long prompt', async () => {
  const completion = { model: 'demo', prompt: 'The capital of France is', max_tokens: 4, temperature: 0 };
  const message = { model: 'demo', max_tokens: 4, messages: [{ role: 'user', content: 'Hello' }] };
  const answer = await ask('/v1/completions', completion, { Authorization: `Bearer ${KEY}` });
  expect(await answer.text()).toContain('Paris');
  expect((await ask('/v1/messages', message, { 'x-api-key': KEY })).status).toBe(200);
  expect((await ask('/v1/completions', completion, { Authorization: `Bearer ${WRONG}` })).status).toBe(401);
  expect((await get(`/v1/models?limit=5&api_key=${WRONG}`, KEY)).status).toBe(200);
  expect(
    (await ask('/v1/completions', { ...completion, max_token: KEY }, { Authorization: `Bearer ${KEY}` })).status,
  ).toBe(200);
  // Where no key belongs, and a path that would begin another line.
  expect((await get(`/v1/models/${KEY}`, KEY)).status).toBe(404);
  expect(
    (await ask('/v1/completions', completion, { Authorization: `Bearer ${KEY}`, 'X-Request-Id': KEY })).status,
  ).toBe(200);
  expect((await get('/nothing%0AERROR%20forged', KEY)).status).toBe(404);
  const told = [];
  for (const path of ['/v1/models', '/health', '/metrics', '/server_info?config_format=json', '/openapi.json']) {
    const response = await get(path, KEY);
    expect(response.status).toBe(200);
    told.push(await response.text());
  }
  await server.logged(/GET \/openapi\.json" 200/);

  const log = server.stderr();
  expect(log).toContain("/v1/chat/completions -H 'Authorization: Bearer KEY' -H 'Content-Type");
  expect(log).toMatch(/received request cmpl-\S+ params=/);
  expect(log).toContain('prompt="The capital ');
  expect(log).toContain('Fields that this endpoint does not know are ignored: max_token\n');
  expect(log).toMatch(/Iteration\(0\): 1 context requests, \d+ context tokens, 0 generation requests/);
  expect(log).toMatch(/Slow step 0: /);
  expect(log).toMatch(/"POST \/v1\/completions" 200/);
  expect(log).toMatch(/"POST \/v1\/completions" 401/);
  expect(log).toMatch(/"GET \/v1\/models" 200/);
  expect(log).toContain('GET /v1/models?limit=5&api_key=***" 200');
  expect(log).toContain('"GET /nothing%0AERROR%20forged" 404');
  expect(log).not.toMatch(/^ERROR/m);
  expect(log).not.toMatch(/"GET \/(health|metrics)/);
  for (const secret of [KEY, WRONG, HUB_TOKEN]) {
    expect(log).not.toContain(secret);
    expect(told.join()).not.toContain(secret);
  }
  expect(log).not.toContain('Paris');
  expect(log).not.toContain('The capital of France is');
});
