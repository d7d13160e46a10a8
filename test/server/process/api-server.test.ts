import { expect, test } from 'bun:test';
import { EngineArgs } from '../../../src/config/engine-args.ts';
import { ApiServer } from '../../../src/server/process/api-server.ts';

test('before the engine is there every request is refused, with the time to come again', async () => {
  const config = await new EngineArgs({ model: 'demo', host: '127.0.0.1', port: 0 }).createEngineConfig();
  const server = new ApiServer(config, { reusePort: false });
  const { status, headers } = await fetch(`${server.url}/v1/completions`, { method: 'POST', body: '{}' });
  expect([status, headers.get('Retry-After'), headers.get('X-Request-Id')]).toEqual([503, '1', null]);
  await server.drain(0);
});
