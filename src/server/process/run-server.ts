import { constants } from 'node:os';
import type { BaoConfig } from '../../config/bao-config.ts';
import { keepsAliveOnEngineDeath } from '../../config/engine-variables.ts';
import type { AsyncLLM } from '../../engine/async-llm.ts';
import type { CoreLinkEnd } from '../../engine/core-link.ts';
import { EngineWatch, type EngineWatchOptions, watchOptionsFromEnv } from '../../engine/engine-watch.ts';
import { type CoreEngines, launchCoreEngines, withCoreResults } from '../../engine/launch-core-engines.ts';
import { logger } from '../../logging/logger.ts';
import { AdapterTable } from '../../lora/adapter-table.ts';
import { resolveParsers } from '../../parsers/resolve-parsers.ts';
import { loadPlugins } from '../../plugins/plugins.ts';
import { canScore, type PoolingConfig } from '../../pooling/pooling-config.ts';
import { SharedLoad } from '../shared-load.ts';
import { ApiServer } from './api-server.ts';
import { ApiServerWorker } from './api-server-process.ts';
import { probePort, removeStaleSocket } from './listener.ts';

const log = logger('server');

/** After the engine's death: time for the errors of what was running to reach their clients, and for a probe to see /health say why. */
const DEATH_GRACE_MS = 1000;
const CORE_STOP_TIMEOUT_MS = 5000;
/** Ctrl-C goes to all processes of a terminal, and `bun run` passes on what it gets: a signal that comes so soon after the first is the same one. */
const SAME_SIGNAL_MS = 500;
/** For answers that were finished or failed at the deadline to be written. */
const DRAIN_GRACE_MS = 5000;

/**
 * Serves until a signal or the engine's death, and gives the exit code. The socket is bound first, so that a port in use fails before anything is loaded.
 * Throws ConfigError and CoreStartupError, both fit for the operator.
 */
export async function runServer(config: BaoConfig): Promise<number> {
  await loadPlugins(config.plugins.plugin);
  // A name that nobody has registered fails here, before anything is loaded.
  resolveParsers(config.frontend);
  const server = await Server.start(config);
  return server.done;
}

/** All threads of a serving process. */
class Server {
  private readonly exit = Promise.withResolvers<number>();
  private readonly workers: ApiServerWorker[] = [];
  private engine: AsyncLLM | null = null;
  private engines: CoreEngines | null = null;
  private watch: EngineWatch | null = null;
  private stopping = false;
  private signalledMs = 0;
  /** A thread has failed that the server can't do without. */
  private isDead = false;

  private constructor(
    private readonly config: BaoConfig,
    private readonly apiServer: ApiServer,
    private readonly load: SharedLoad,
    private readonly adapters: AdapterTable,
    private readonly watchOptions: EngineWatchOptions,
  ) {}

  static async start(config: BaoConfig): Promise<Server> {
    const startedMs = performance.now();
    const watchOptions = watchOptionsFromEnv();
    if (config.frontend.uds !== null) await removeStaleSocket(config.frontend.uds);
    const { apiServerCount, enableSslRefresh } = config.frontend;
    const shared = apiServerCount > 1 || enableSslRefresh;
    // Of those that share a port the system gives a free one to the first; a port that was asked for may be another server's, shared or not.
    if (shared && config.frontend.port !== 0) await probePort(config.frontend);
    const load = new SharedLoad();
    const adapters = AdapterTable.fromConfig(config);
    const apiServer = new ApiServer(config, { reusePort: shared, load, adapters });
    const server = new Server(config, apiServer, load, adapters, watchOptions);
    process.on('SIGINT', () => server.onSignal('SIGINT'));
    process.on('SIGTERM', () => server.onSignal('SIGTERM'));
    try {
      // A signal ends a start too: then there is nothing to wait for.
      await Promise.race([server.open(), server.done]);
    } catch (error) {
      await server.apiServer.drain(0);
      throw error;
    }
    if (!server.stopping) server.announce(performance.now() - startedMs);
    return server;
  }

  get done(): Promise<number> {
    return this.exit.promise;
  }

  private async open(): Promise<void> {
    const numServers = this.config.frontend.apiServerCount;
    for (let i = 1; i < numServers; i++) {
      this.workers.push(
        new ApiServerWorker(
          i,
          () => this.collectMetrics(),
          (reason) => this.onDeath(reason),
        ),
      );
    }
    const cores = this.launchCores(numServers);
    const peers = numServers > 1 ? { collect: () => this.collectMetrics(), isFirst: true } : null;
    const own = this.apiServer.open(
      cores.then(({ config, links }) => ({ config, links: links[0]! })),
      peers,
    );
    const others = this.workers.map(async (worker, i) => {
      await worker.start(this.config, this.apiServer.port!, this.load, this.adapters);
      const { config, links } = await cores;
      await worker.connect(config, links[i + 1]!);
    });
    [this.engine] = await Promise.all([own, ...others]);
    this.watch = new EngineWatch(this.engines!.cores, this.watchOptions, (reason) => this.onDeath(reason));
    this.watch.start();
  }

  private async launchCores(numClients: number): Promise<{ config: BaoConfig; links: CoreLinkEnd[][] }> {
    this.engines = await launchCoreEngines(this.config, numClients);
    return { config: withCoreResults(this.config, this.engines), links: this.engines.links };
  }

  private announce(startupMs: number): void {
    if (this.config.model.trustRemoteCode)
      log.info("--trust-remote-code changes nothing: a model's own code is never run");
    const { url } = this.apiServer;
    const model = this.config.model.servedModelName[0];
    const seconds = (startupMs / 1000).toFixed(2);
    log.info(`Ready after ${seconds} s: ${url}/v1 serves ${model}`);
    const target = url.startsWith('unix:') ? `--unix-socket ${url.slice(5)} http://localhost` : url;
    const { path, fields } = exampleRequest(this.config.model.pooling);
    const body = JSON.stringify({ model, ...fields });
    const key = this.config.frontend.apiKey.length > 0 ? " -H 'Authorization: Bearer KEY'" : '';
    log.info(`Try it:\n  curl ${target}${path}${key} -H 'Content-Type: application/json' -d '${body}'`);
  }

  private async collectMetrics(): Promise<unknown[]> {
    return Promise.all([this.apiServer.metricsSnapshot(), ...this.workers.map((worker) => worker.metricsSnapshot())]);
  }

  private onSignal(signal: 'SIGINT' | 'SIGTERM'): void {
    if (this.stopping) {
      if (performance.now() - this.signalledMs < SAME_SIGNAL_MS) return;
      log.warn(`${signal} again: stopping at once`);
      process.exit(128 + constants.signals[signal]);
    }
    this.stopping = true;
    this.signalledMs = performance.now();
    const seconds = this.config.frontend.shutdownTimeout;
    log.info(
      this.engine === null
        ? `${signal} while starting`
        : `${signal}: no new requests; running ones have ${seconds} s to end`,
    );
    this.stop(seconds * 1000).then(() => this.exit.resolve(this.isDead ? 1 : 0));
  }

  private async stop(timeoutMs: number): Promise<void> {
    const drained = Promise.all([this.apiServer, ...this.workers].map((server) => server.drain(timeoutMs)));
    // A front end whose loop hangs never answers.
    await Promise.race([drained, Bun.sleep(timeoutMs + DRAIN_GRACE_MS)]);
    this.watch?.stop();
    // Of several cores those that live are not asked any more either.
    if (this.isDead || this.engine === null || this.engines === null) return;
    const stopped = this.engine.shutdownCores().then(() => Promise.all(this.engines!.cores.map((core) => core.ended)));
    await Promise.race([stopped, Bun.sleep(CORE_STOP_TIMEOUT_MS)]);
    log.info('Stopped');
  }

  /** Also while the server drains: what runs then fails at once, and the drain has nothing left to wait for. */
  private onDeath(reason: string): void {
    if (this.isDead) return;
    this.isDead = true;
    log.error(reason);
    for (const server of [this.apiServer, ...this.workers]) server.markDead(reason);
    if (this.stopping || keepsAliveOnEngineDeath()) return;
    setTimeout(() => this.exit.resolve(1), DEATH_GRACE_MS);
  }
}

/** Something that the model can be asked. */
function exampleRequest(pooling: PoolingConfig | null): { path: string; fields: Record<string, unknown> } {
  const question = 'What is the capital of France?';
  if (pooling === null)
    return { path: '/v1/chat/completions', fields: { messages: [{ role: 'user', content: question }] } };
  if (pooling.convert === 'embed') return { path: '/v1/embeddings', fields: { input: question } };
  if (!canScore(pooling)) return { path: '/classify', fields: { input: question } };
  return { path: '/rerank', fields: { query: question, documents: ['Paris is.', 'It rains.'] } };
}
