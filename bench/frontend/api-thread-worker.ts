import type { BaoConfig } from '../../src/config/bao-config.ts';
import type { CoreLinkEnd } from '../../src/engine/core-link.ts';
import { configureLogging } from '../../src/logging/logger.ts';
import { ApiServer } from '../../src/server/process/api-server.ts';
import { SharedLoad } from '../../src/server/shared-load.ts';
import { threadSeconds } from './thread-seconds.ts';

/** Entry point of a Worker that is an API server of `--api-server-count`. It tells its CPU time when it is open, and whenever it gets another message. */
declare const self: Worker;

export interface ApiThreadOptions {
  config: BaoConfig;
  /** That of the first API server, which the threads share. */
  port: number;
  link: CoreLinkEnd;
}

export interface ApiThreadMessage {
  cpuSeconds: number;
}

function tell(): void {
  self.postMessage({ cpuSeconds: threadSeconds() } satisfies ApiThreadMessage);
}

async function start({ config, port, link }: ApiThreadOptions): Promise<void> {
  configureLogging({ level: config.logging.logLevel, format: config.logging.logFormat });
  const server = new ApiServer(config, { reusePort: true, port, load: new SharedLoad() });
  await server.open(Promise.resolve({ config, links: [link] }));
}

self.onmessage = async ({ data }: MessageEvent<ApiThreadOptions | 'cpu'>) => {
  if (data !== 'cpu') await start(data);
  tell();
};
