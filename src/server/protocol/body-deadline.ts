import { ApiError } from '../errors.ts';

/** Bytes whose arrival the deadline is for. */
export const PIECE_BYTES = 64 * 1024;

/** Bun waits for a stalled body for ever: this gives up when `PIECE_BYTES` of it, or what there is, have not come in time. */
export class BodyDeadline {
  private readonly rejection = Promise.withResolvers<never>();
  private timer: ReturnType<typeof setTimeout>;
  private arrived = 0;

  constructor(private readonly seconds: number) {
    // Nobody may be listening any more.
    this.rejection.promise.catch(() => {});
    this.timer = this.start();
  }

  /** Rejects with ApiError 408. */
  get exceeded(): Promise<never> {
    return this.rejection.promise;
  }

  count(bytes: number): void {
    this.arrived += bytes;
    if (this.arrived < PIECE_BYTES) return;
    this.arrived = 0;
    clearTimeout(this.timer);
    this.timer = this.start();
  }

  stop(): void {
    clearTimeout(this.timer);
  }

  private start(): ReturnType<typeof setTimeout> {
    return setTimeout(() => this.rejection.reject(tooSlow(this.seconds)), this.seconds * 1000);
  }
}

function tooSlow(seconds: number): ApiError {
  const message = `The request body came too slowly: ${PIECE_BYTES / 1024} KiB, or what there is, must arrive within ${seconds} s (--request-body-timeout).`;
  return new ApiError(408, 'Request Timeout', message, null, { Connection: 'close' });
}
