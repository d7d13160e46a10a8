import type { BaoConfig } from '../../config/bao-config.ts';
import type { CoreLinkEnd } from '../../engine/core-link.ts';
import type { AdapterTable } from '../../lora/adapter-table.ts';
import { SOURCE_URL } from '../../package-layout.ts';
import type { SharedLoad } from '../shared-load.ts';
import type { FromApiServer, ToApiServer } from './api-server-worker.ts';

/** A front end in a Worker as the main thread sees it. */
export class ApiServerWorker {
  private readonly worker = new Worker(new URL('server/process/api-server-worker.ts', SOURCE_URL).href);
  private readonly hello = Promise.withResolvers<void>();
  private readonly ready = Promise.withResolvers<void>();
  private readonly drained = Promise.withResolvers<void>();
  private readonly snapshots = new Map<number, (snapshot: unknown) => void>();
  private nextCallId = 1;

  /** @param collect gives the metrics of all front ends */
  constructor(
    private readonly serverIndex: number,
    private readonly collect: () => Promise<unknown[]>,
    onFailure: (reason: string) => void,
  ) {
    this.ready.promise.catch(() => {});
    const fail = (reason: string) => {
      this.ready.reject(new Error(reason));
      this.drained.resolve();
      onFailure(`API server ${serverIndex} failed: ${reason}`);
    };
    this.worker.onmessage = (event: MessageEvent<FromApiServer>) => this.onMessage(event.data, fail);
    this.worker.onerror = (event) => fail(event.message);
    this.worker.addEventListener('close', () => fail('the Worker ended unexpectedly'));
  }

  async start(config: BaoConfig, port: number, load: SharedLoad, adapters: AdapterTable): Promise<void> {
    await this.hello.promise;
    const shared = { load: load.buffer, adapters: adapters.buffer };
    this.post({ type: 'INIT', config, serverIndex: this.serverIndex, port, ...shared });
  }

  /** Settles when the front end takes requests. */
  async connect(config: BaoConfig, links: CoreLinkEnd[]): Promise<void> {
    this.post(
      { type: 'CORES', config, links },
      links.map((link) => link.port),
    );
    await this.ready.promise;
  }

  async drain(timeoutMs: number): Promise<void> {
    this.post({ type: 'DRAIN', timeoutMs });
    await this.drained.promise;
  }

  markDead(reason: string): void {
    this.post({ type: 'ENGINE_DEAD', reason });
  }

  metricsSnapshot(): Promise<unknown> {
    const callId = this.nextCallId++;
    return new Promise((resolve) => {
      this.snapshots.set(callId, resolve);
      this.post({ type: 'SNAPSHOT', callId });
    });
  }

  private onMessage(message: FromApiServer, fail: (reason: string) => void): void {
    switch (message.type) {
      case 'HELLO':
        this.hello.resolve();
        break;
      case 'READY':
        this.ready.resolve();
        break;
      case 'FAILED':
        fail(message.error);
        break;
      case 'DRAINED':
        this.drained.resolve();
        break;
      case 'SNAPSHOT_TAKEN':
        this.snapshots.get(message.callId)?.(message.snapshot);
        this.snapshots.delete(message.callId);
        break;
      case 'COLLECT': {
        const { callId } = message;
        this.collect().then((snapshots) => this.post({ type: 'COLLECTED', callId, snapshots }));
        break;
      }
    }
  }

  private post(message: ToApiServer, transfer: Transferable[] = []): void {
    this.worker.postMessage(message, transfer);
  }
}
