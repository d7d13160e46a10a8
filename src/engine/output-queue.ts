import type { OutputSink, RequestOutput } from './engine-client.ts';

/** A request's outputs as an async iterable; ends after the one with `finished`, throws the request's error. One reader. */
export class OutputQueue implements OutputSink, AsyncIterable<RequestOutput> {
  private readonly outputs: RequestOutput[] = [];
  private error: Error | null = null;
  private wake: (() => void) | null = null;

  onOutput(output: RequestOutput): void {
    this.outputs.push(output);
    this.wake?.();
  }

  onError(error: Error): void {
    this.error = error;
    this.wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<RequestOutput, void, void> {
    for (;;) {
      const output = this.outputs.shift();
      if (output !== undefined) {
        yield output;
        if (output.finished) return;
      } else if (this.error !== null) {
        throw this.error;
      } else {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
      }
    }
  }
}
