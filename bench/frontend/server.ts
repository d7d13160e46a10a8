import { explainFailure } from '../../src/cli/run-command.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { createCoreLink } from '../../src/engine/core-link.ts';
import { CoreStatus } from '../../src/engine/core-status.ts';
import { configureLogging } from '../../src/logging/logger.ts';
import { ApiServer } from '../../src/server/process/api-server.ts';
import { SharedLoad } from '../../src/server/shared-load.ts';
import { ApiThread } from './api-thread.ts';
import type { InstantCoreOptions } from './instant-core.ts';
import { threadSeconds } from './thread-seconds.ts';

/**
 * A process of its own, `server.ts MODEL STEPS_AT_ONCE API_SERVER_COUNT`: the real API servers, the first in the main thread, with an engine core that computes nothing. Tells its URL, then
 * the CPU time of the API servers' threads whenever it is asked.
 */
export type FrontendMessage =
  | { type: 'ready'; url: string }
  | { type: 'cpu'; seconds: number }
  | { type: 'failed'; reason: string };

async function start(model: string, stepsAtOnce: number, apiServerCount: number): Promise<void> {
  const config = await new EngineArgs({
    model,
    host: '127.0.0.1',
    port: 0,
    apiServerCount,
    logLevel: 'warning',
    disableUvicornAccessLog: true,
  }).createEngineConfig();
  configureLogging({ level: config.logging.logLevel, format: config.logging.logFormat });

  const status = CoreStatus.create(apiServerCount);
  const links = Array.from({ length: apiServerCount }, (_, i) => createCoreLink(0, i, status));
  const core = new Worker(new URL('./instant-core.ts', import.meta.url).href);
  const ends = links.map((link) => link.core);
  const options: InstantCoreOptions = { ends, stepsAtOnce };
  core.postMessage(
    options,
    ends.map((end) => end.port),
  );

  const clients = links.map((link) => link.client);
  const server = new ApiServer(config, { reusePort: apiServerCount > 1, port: 0, load: new SharedLoad() });
  await server.open(Promise.resolve({ config, links: [clients[0]!] }));
  const others = await Promise.all(
    clients.slice(1).map((link) => ApiThread.start({ config, port: server.port!, link })),
  );
  tell({ type: 'ready', url: server.url.replace('localhost', '127.0.0.1') });
  process.on('message', async () => {
    const seconds = await Promise.all([threadSeconds(), ...others.map((thread) => thread.cpuSeconds())]);
    tell({ type: 'cpu', seconds: seconds.reduce((sum, each) => sum + each, 0) });
  });
}

function tell(message: FrontendMessage): void {
  process.send!(message);
}

try {
  const [model, stepsAtOnce, apiServerCount] = process.argv.slice(2);
  await start(model!, Number(stepsAtOnce), Number(apiServerCount));
} catch (error) {
  tell({ type: 'failed', reason: explainFailure(error).text.replace(/^bao: /, '') });
}
