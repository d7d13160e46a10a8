import type { BaoConfig } from '../config/bao-config.ts';
import { engineTimeoutMs } from '../config/engine-variables.ts';
import { logger } from '../logging/logger.ts';
import { SOURCE_URL } from '../package-layout.ts';
import type { CoreReady, FromCore, ToCore } from './core/handshake.ts';
import { type CoreLinkEnd, createCoreLink } from './core-link.ts';
import { CoreStatus } from './core-status.ts';

const log = logger('engine');

/** A Worker that has not even started to run our code by then never will. */
const HELLO_TIMEOUT_MS = 60_000;

/** A running core as the process that launched it sees it. */
export interface CoreHandle {
  readonly coreIndex: number;
  readonly status: CoreStatus;
  readonly ready: CoreReady;
  /** Settles when the core has ended: null after a stop that was asked for, else the reason. */
  readonly ended: Promise<string | null>;
  terminate(): void;
}

export interface CoreEngines {
  cores: CoreHandle[];
  /** The clients' ends of the connections: `links[client][core]`. */
  links: CoreLinkEnd[][];
}

/** An engine core that could not start; the message is the core's own. */
export class CoreStartupError extends Error {
  constructor(
    readonly coreIndex: number,
    message: string,
    readonly coreStack: string,
  ) {
    super(message);
    this.name = 'CoreStartupError';
  }
}

/** Settles when no Worker of this process loads libraries, whichever engine it belongs to. */
let libraries: Promise<unknown> = Promise.resolve();

/**
 * Starts one Worker per data-parallel rank and waits until all are ready. Native libraries are loaded by one Worker after another, those of other engines
 * too: Workers that `dlopen` at the same moment have crashed the process.
 */
export async function launchCoreEngines(config: BaoConfig, numClients: number): Promise<CoreEngines> {
  const links: CoreLinkEnd[][] = Array.from({ length: numClients }, () => []);
  const starting: StartingCore[] = [];
  for (let coreIndex = 0; coreIndex < config.parallel.dataParallelSize; coreIndex++) {
    const status = CoreStatus.create(numClients);
    const ends = links.map((clientLinks, clientIndex) => {
      const link = createCoreLink(coreIndex, clientIndex, status);
      clientLinks.push(link.client);
      return link.core;
    });
    starting.push(new StartingCore(config, coreIndex, status, ends));
  }
  try {
    const loaded = libraries.then(() => loadLibraries(starting));
    libraries = loaded.catch(() => {});
    await loaded;
    const cores = await Promise.all(starting.map((core) => core.whenReady()));
    return { cores, links };
  } catch (error) {
    for (const core of starting) core.terminate();
    throw error;
  }
}

async function loadLibraries(cores: readonly StartingCore[]): Promise<void> {
  for (const core of cores) await core.loadLibraries();
}

/** The configuration with what the cores found out about themselves. */
export function withCoreResults(config: BaoConfig, { cores }: CoreEngines): BaoConfig {
  const maxModelLen = Math.min(...cores.map((core) => core.ready.maxModelLen));
  const { numGpuBlocks } = cores[0]!.ready;
  return { ...config, model: { ...config.model, maxModelLen }, cache: { ...config.cache, numGpuBlocks } };
}

class StartingCore {
  private readonly worker: Worker;
  private readonly hello = Promise.withResolvers<void>();
  private readonly libraries = Promise.withResolvers<void>();
  private readonly ready = Promise.withResolvers<CoreReady>();
  private readonly ended = Promise.withResolvers<string | null>();
  private readonly readyTimeoutMs = engineTimeoutMs('BAO_ENGINE_READY_TIMEOUT_S');

  constructor(
    private readonly config: BaoConfig,
    private readonly coreIndex: number,
    private readonly status: CoreStatus,
    private readonly clients: CoreLinkEnd[],
  ) {
    // A heap that is collected sooner: with the demo some 30 MiB less are resident, at the same speed.
    this.worker = new Worker(new URL('engine/core/core-worker.ts', SOURCE_URL).href, {
      name: `core ${coreIndex}`,
      smol: true,
    });
    this.worker.onmessage = (event: MessageEvent<FromCore>) => this.onMessage(event.data);
    this.worker.onerror = (event) => this.fail(event.message || 'the Worker failed', event.message);
    this.worker.addEventListener('close', () => this.fail('the Worker ended unexpectedly', ''));
    // Rejections are seen by whoever waits for the stage that the core is in.
    for (const stage of [this.hello, this.libraries, this.ready]) stage.promise.catch(() => {});
  }

  async loadLibraries(): Promise<void> {
    await this.within(HELLO_TIMEOUT_MS, this.hello.promise, 'did not start');
    const init: ToCore = {
      type: 'INIT',
      config: this.config,
      coreIndex: this.coreIndex,
      status: this.status.buffer,
      clients: this.clients,
    };
    this.worker.postMessage(
      init,
      this.clients.map((end) => end.port),
    );
    await this.within(this.readyTimeoutMs, this.libraries.promise, 'did not load its libraries');
  }

  async whenReady(): Promise<CoreHandle> {
    const ready = await this.within(
      this.readyTimeoutMs,
      this.ready.promise,
      'is not ready (BAO_ENGINE_READY_TIMEOUT_S sets the deadline)',
    );
    return {
      coreIndex: this.coreIndex,
      status: this.status,
      ready,
      ended: this.ended.promise,
      terminate: () => this.terminate(),
    };
  }

  terminate(): void {
    this.worker.terminate();
  }

  private onMessage(message: FromCore): void {
    switch (message.type) {
      case 'HELLO':
        this.hello.resolve();
        break;
      case 'LIBRARIES':
        this.libraries.resolve();
        break;
      case 'READY': {
        const { type: _, ...ready } = message;
        this.ready.resolve(ready);
        break;
      }
      case 'FAILED':
        this.fail(message.error, message.stack);
        break;
      case 'STOPPED':
        this.ended.resolve(null);
        break;
    }
  }

  private fail(error: string, stack: string): void {
    const failure = new CoreStartupError(this.coreIndex, error, stack);
    for (const stage of [this.hello, this.libraries, this.ready]) stage.reject(failure);
    this.status.state = 'failed';
    if (stack) log.debug(`Engine core ${this.coreIndex} failed`, { stack });
    this.ended.resolve(error);
  }

  /** The promise's value, or an error that says how long was waited for what. */
  private async within<T>(timeoutMs: number, promise: Promise<T>, problem: string): Promise<T> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const deadline = new Promise<never>((_, reject) => {
      const message = `Engine core ${this.coreIndex} ${problem} within ${timeoutMs / 1000} s.`;
      timer = setTimeout(() => reject(new CoreStartupError(this.coreIndex, message, '')), timeoutMs);
    });
    try {
      return await Promise.race([promise, deadline]);
    } finally {
      clearTimeout(timer);
    }
  }
}
