import type { BaoConfig } from '../../config/bao-config.ts';
import type { CoreLinkEnd } from '../../engine/core-link.ts';
import { configureLogging } from '../../logging/logger.ts';
import { AdapterTable } from '../../lora/adapter-table.ts';
import { loadPlugins } from '../../plugins/plugins.ts';
import { SharedLoad } from '../shared-load.ts';
import { ApiServer } from './api-server.ts';

/** Messages between the main thread and a front end in a Worker (`--api-server-count`). */
export type ToApiServer =
  | {
      type: 'INIT';
      config: BaoConfig;
      serverIndex: number;
      port: number;
      load: SharedArrayBuffer;
      adapters: SharedArrayBuffer;
    }
  | { type: 'CORES'; config: BaoConfig; links: CoreLinkEnd[] }
  | { type: 'DRAIN'; timeoutMs: number }
  | { type: 'ENGINE_DEAD'; reason: string }
  /** Answer with this front end's metrics. */
  | { type: 'SNAPSHOT'; callId: number }
  /** The answer to COLLECT: all front ends' metrics. */
  | { type: 'COLLECTED'; callId: number; snapshots: unknown[] };

export type FromApiServer =
  | { type: 'HELLO' }
  | { type: 'READY' }
  | { type: 'FAILED'; error: string }
  | { type: 'DRAINED' }
  | { type: 'SNAPSHOT_TAKEN'; callId: number; snapshot: unknown }
  | { type: 'COLLECT'; callId: number };

declare const self: Worker;

const tell = (message: FromApiServer) => self.postMessage(message);

let server: ApiServer | null = null;
const cores = Promise.withResolvers<{ config: BaoConfig; links: CoreLinkEnd[] }>();
const collections = new Map<number, (snapshots: unknown[]) => void>();
let nextCallId = 1;

self.onmessage = (event: MessageEvent<ToApiServer>) => {
  const message = event.data;
  switch (message.type) {
    case 'INIT':
      start(message).catch((error: Error) => tell({ type: 'FAILED', error: error.message }));
      break;
    case 'CORES':
      cores.resolve(message);
      break;
    case 'DRAIN':
      drain(message.timeoutMs);
      break;
    case 'ENGINE_DEAD':
      server?.markDead(message.reason);
      break;
    case 'SNAPSHOT':
      server?.metricsSnapshot().then((snapshot) => tell({ type: 'SNAPSHOT_TAKEN', callId: message.callId, snapshot }));
      break;
    case 'COLLECTED':
      collections.get(message.callId)?.(message.snapshots);
      collections.delete(message.callId);
      break;
  }
};

async function start({
  config,
  serverIndex,
  port,
  load,
  adapters,
}: Extract<ToApiServer, { type: 'INIT' }>): Promise<void> {
  configureLogging({
    level: config.logging.logLevel,
    format: config.logging.logFormat,
    thread: `api server ${serverIndex}`,
    secrets: config.frontend.apiKey,
  });
  await loadPlugins(config.plugins.plugin);
  const shared = { load: new SharedLoad(load), adapters: new AdapterTable(adapters) };
  server = new ApiServer(config, { reusePort: true, port, ...shared });
  await server.open(cores.promise, { collect, isFirst: false });
  tell({ type: 'READY' });
}

/** One that is not open yet has nothing to finish. */
async function drain(timeoutMs: number): Promise<void> {
  await server?.drain(timeoutMs);
  tell({ type: 'DRAINED' });
}

function collect(): Promise<unknown[]> {
  const callId = nextCallId++;
  return new Promise((resolve) => {
    collections.set(callId, resolve);
    tell({ type: 'COLLECT', callId });
  });
}

tell({ type: 'HELLO' });
