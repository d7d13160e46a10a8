import { readFileSync } from 'node:fs';
import { explainFailure } from '../../src/cli/run-command.ts';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { createCoreLink } from '../../src/engine/core-link.ts';
import { CoreStatus } from '../../src/engine/core-status.ts';
import { configureLogging } from '../../src/logging/logger.ts';
import { ApiServer } from '../../src/server/process/api-server.ts';
import { SharedLoad } from '../../src/server/shared-load.ts';
import type { InstantCoreOptions } from './instant-core.ts';

/** A process of its own, `server.ts MODEL STEPS_AT_ONCE`: the real API server, with an engine core that computes nothing. Tells its URL, then its CPU time whenever it is asked. */
export type FrontendMessage =
  | { type: 'ready'; url: string }
  | { type: 'cpu'; seconds: number }
  | { type: 'failed'; reason: string };

async function start(model: string, stepsAtOnce: number): Promise<void> {
  const config = await new EngineArgs({
    model,
    host: '127.0.0.1',
    port: 0,
    logLevel: 'warning',
    disableUvicornAccessLog: true,
  }).createEngineConfig();
  configureLogging({ level: config.logging.logLevel, format: config.logging.logFormat });

  const link = createCoreLink(0, 0, CoreStatus.create(1));
  const core = new Worker(new URL('./instant-core.ts', import.meta.url).href);
  const options: InstantCoreOptions = { end: link.core, stepsAtOnce };
  core.postMessage(options, [link.core.port]);

  const server = new ApiServer(config, { reusePort: false, port: 0, load: new SharedLoad() });
  await server.open(Promise.resolve({ config, links: [link.client] }));
  tell({ type: 'ready', url: server.url.replace('localhost', '127.0.0.1') });
  process.on('message', () => tell({ type: 'cpu', seconds: threadSeconds() }));
}

function tell(message: FrontendMessage): void {
  process.send!(message);
}

/** CPU time of this thread, which is the API server's; elsewhere than on Linux that of all threads. */
function threadSeconds(): number {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]) / 1e9;
  } catch {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e6;
  }
}

try {
  await start(process.argv[2]!, Number(process.argv[3]));
} catch (error) {
  tell({ type: 'failed', reason: explainFailure(error).text.replace(/^bao: /, '') });
}
