import type { ApiThreadMessage, ApiThreadOptions } from './api-thread-worker.ts';

/** An API server in a Worker that tells its CPU time. */
export class ApiThread {
  private readonly worker = new Worker(new URL('./api-thread-worker.ts', import.meta.url).href);
  private next = Promise.withResolvers<ApiThreadMessage>();

  private constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<ApiThreadMessage>) => this.next.resolve(data);
    this.worker.onerror = ({ message }) => this.next.reject(new Error(message));
  }

  /** Settles when it takes requests. */
  static async start(options: ApiThreadOptions): Promise<ApiThread> {
    const thread = new ApiThread();
    thread.worker.postMessage(options, [options.link.port]);
    await thread.answer();
    return thread;
  }

  async cpuSeconds(): Promise<number> {
    this.worker.postMessage('cpu');
    return (await this.answer()).cpuSeconds;
  }

  private async answer(): Promise<ApiThreadMessage> {
    const message = await this.next.promise;
    this.next = Promise.withResolvers();
    return message;
  }
}
