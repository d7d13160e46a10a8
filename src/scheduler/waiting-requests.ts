import type { Request } from './request.ts';
import { type RequestOrder, RequestQueue } from './request-queue.ts';
import type { RunningAdapters } from './running-adapters.ts';

/**
 * Waiting requests, those of each adapter in a queue of their own. One whose adapter has no room among the running ones is passed over, so that requests
 * of one adapter run together whatever order they came in; but not for ever: once it has been passed over by `maxOvertakings`, no request with an
 * adapter goes before it any more.
 */
export class WaitingRequests {
  /** By adapter; null: the base model. None is empty. */
  private readonly queues = new Map<number | null, RequestQueue>();
  private numRequests = 0;
  private readonly preempted = new Set<Request>();

  constructor(
    private readonly order: RequestOrder,
    private readonly adapters: RunningAdapters,
    private readonly maxOvertakings: number,
  ) {}

  get size(): number {
    return this.numRequests;
  }

  /** Those that have run before. */
  get numPreempted(): number {
    return this.preempted.size;
  }

  push(request: Request): void {
    const id = adapterOf(request);
    let queue = this.queues.get(id);
    if (queue === undefined) {
      queue = new RequestQueue(this.order);
      this.queues.set(id, queue);
    }
    queue.push(request);
    this.numRequests++;
    if (request.status === 'preempted') this.preempted.add(request);
  }

  /** Takes a request out of wherever it is. */
  remove(request: Request): void {
    const id = adapterOf(request);
    const queue = this.queues.get(id);
    if (queue === undefined) throw new Error(`request ${request.requestId} is not waiting`);
    queue.remove(request);
    this.numRequests--;
    this.preempted.delete(request);
    if (queue.size === 0) this.queues.delete(id);
  }

  /** The request to be admitted next; null where none may be. */
  next(): Request | null {
    const first = this.first(() => true);
    if (first === null || this.adapters.hasRoomFor(adapterOf(first))) return first;
    if (first.numOvertakings >= this.maxOvertakings) return this.first((loraId) => loraId === null);
    return this.first((loraId) => this.adapters.hasRoomFor(loraId));
  }

  /** The same of those that have run before. */
  nextPreempted(): Request | null {
    let next: Request | null = null;
    for (const request of this.preempted) {
      if (!this.adapters.hasRoomFor(adapterOf(request))) continue;
      if (next === null || this.order(request, next) < 0) next = request;
    }
    return next;
  }

  /** Takes out a request that `next` or `nextPreempted` gave. */
  admit(request: Request): void {
    this.remove(request);
    const first = this.first(() => true);
    if (first !== null && this.order(first, request) < 0) first.numOvertakings++;
  }

  /** Names of the adapters that are waited for. */
  loraNames(): string[] {
    return [...this.queues.values()].flatMap((queue) => queue.peek()!.lora?.name ?? []);
  }

  /** The first in order of those whose adapter passes. */
  private first(passes: (loraId: number | null) => boolean): Request | null {
    let first: Request | null = null;
    for (const [id, queue] of this.queues) {
      const head = queue.peek()!;
      if ((first === null || this.order(head, first) < 0) && passes(id)) first = head;
    }
    return first;
  }
}

function adapterOf(request: Request): number | null {
  return request.lora?.id ?? null;
}
