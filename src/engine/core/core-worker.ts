import { configureLogging, logger } from '../../logging/logger.ts';
import { loadPlugins } from '../../plugins/plugins.ts';
import { ClientConnection } from '../core-link.ts';
import { CoreStatus } from '../core-status.ts';
import { createEngineCore } from './create-engine-core.ts';
import type { FromCore, ToCore } from './handshake.ts';

/** Entry point of a core's Worker: handshake, then the busy loop, which only returns when the core is told to stop. */
declare const self: Worker;

const log = logger('core');
const tell = (message: FromCore) => self.postMessage(message);

self.onmessage = async (event: MessageEvent<ToCore>) => {
  const { config, coreIndex, clients } = event.data;
  const status = new CoreStatus(event.data.status);
  configureLogging({
    level: config.logging.logLevel,
    format: config.logging.logFormat,
    thread: config.parallel.dataParallelSize > 1 ? `core ${coreIndex}` : null,
    secrets: config.frontend.apiKey,
  });
  try {
    await loadPlugins(config.plugins.plugin);
    const connections = clients.map((end) => new ClientConnection(end, status));
    const { core, ready } = await createEngineCore({
      config,
      coreIndex,
      status,
      connections,
      onLibrariesLoaded: () => tell({ type: 'LIBRARIES' }),
    });
    tell({ type: 'READY', ...ready });
    await core.run();
    core.shutdown();
    status.state = 'stopped';
    tell({ type: 'STOPPED' });
  } catch (error) {
    status.state = 'failed';
    const { message, stack } = error instanceof Error ? error : new Error(String(error));
    log.debug('The core failed', { stack });
    tell({ type: 'FAILED', error: message, stack: stack ?? message });
  }
};

tell({ type: 'HELLO' });
