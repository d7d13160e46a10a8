import { describe, expect, test } from 'bun:test';
import { testServer } from './http.ts';

const flags = { serverDevMode: true };

describe('development routes', () => {
  test('are there in development mode only', async () => {
    const server = await testServer();
    for (const path of ['/sleep', '/wake_up', '/reset_prefix_cache']) {
      expect((await server.post(path, '')).status).toBe(404);
    }
    for (const path of ['/is_sleeping', '/server_info']) expect((await server.get(path)).status).toBe(404);
  });

  test('want a key where there are keys', async () => {
    const server = await testServer({ flags: { ...flags, apiKey: ['secret'] } });
    expect((await server.post('/sleep', '')).status).toBe(401);
    expect((await server.get('/server_info')).status).toBe(401);
    expect((await server.get('/is_sleeping', { Authorization: 'Bearer secret' })).status).toBe(200);
  });

  test('/sleep, /is_sleeping and /wake_up tell the engine what the query says', async () => {
    const { post, get, engine } = await testServer({ flags });
    const isSleeping = async () => (await (await get('/is_sleeping')).json()).is_sleeping;
    expect(await isSleeping()).toBe(false);
    expect((await post('/sleep', '')).status).toBe(200);
    expect(await isSleeping()).toBe(true);
    expect((await post('/wake_up', '')).status).toBe(200);
    await post('/sleep?level=2&mode=wait', '');
    await post('/wake_up?tags=weights&tags=kv_cache', '');
    expect(engine.calls).toEqual([
      ['sleep', 1, 'abort'],
      ['wakeUp', undefined],
      ['sleep', 2, 'wait'],
      ['wakeUp', ['weights', 'kv_cache']],
    ]);
  });

  test('refuse what they do not know, by name', async () => {
    const { postJson, engine } = await testServer({ flags });
    for (const [path, param] of [
      ['/sleep?level=3', 'query.level'],
      ['/sleep?level=deep', 'query.level'],
      ['/sleep?mode=now', 'query.mode'],
      ['/wake_up?tags=everything', 'query.tags.0'],
      ['/reset_prefix_cache?reset_running_requests=perhaps', 'query.reset_running_requests'],
    ]) {
      const { status, body } = await postJson(path!, '');
      expect([path, status, body.error.param]).toEqual([path!, 400, param!]);
    }
    expect(engine.calls).toEqual([]);
  });

  test('/reset_prefix_cache says when blocks are in use', async () => {
    const { post, engine } = await testServer({ flags });
    expect((await post('/reset_prefix_cache', '')).status).toBe(200);
    engine.cacheInUse = true;
    expect((await post('/reset_prefix_cache', '')).status).toBe(409);
    expect((await post('/reset_prefix_cache?reset_running_requests=true', '')).status).toBe(200);
  });

  test('/server_info shows the configuration without its secrets', async () => {
    const key = 'sk-very-secret';
    const { get } = await testServer({ flags: { ...flags, apiKey: [key], hfToken: key } });
    const info = async (query: string) =>
      (await get(`/server_info${query}`, { Authorization: `Bearer ${key}` })).text();
    for (const query of ['', '?config_format=json']) {
      const text = await info(query);
      expect(text).not.toContain(key);
      expect(text).toContain('maxModelLen');
    }
    const { vllm_config: config, system_env: system } = JSON.parse(await info('?config_format=json'));
    expect(config.frontend.apiKey).toEqual(['***']);
    expect(system.bun).toBe(Bun.version);
  });
});
