import type { Request } from './request.ts';

export type SchedulingPolicy = 'fcfs' | 'priority';

/** Negative when `a` is to be served before `b`. A total order: no two requests have the same sequence number. */
export type RequestOrder = (a: Request, b: Request) => number;

/**
 * The order of a policy. It is that of the waiting queue and of the running list alike, so what was preempted comes back to the front by itself: under
 * fcfs whoever has run once arrived before all that have not.
 */
export function requestOrder(policy: SchedulingPolicy): RequestOrder {
  if (policy === 'fcfs') return (a, b) => a.sequence - b.sequence;
  return (a, b) => a.priority - b.priority || a.arrivalTimeMs - b.arrivalTimeMs || a.sequence - b.sequence;
}

/** Waiting requests: a binary heap in which each request knows its place, so that an aborted one is taken out in O(log n). */
export class RequestQueue {
  private readonly heap: Request[] = [];

  constructor(private readonly order: RequestOrder) {}

  get size(): number {
    return this.heap.length;
  }

  /** The request to be served next. */
  peek(): Request | null {
    return this.heap[0] ?? null;
  }

  push(request: Request): void {
    this.heap.push(request);
    this.siftUp(request, this.heap.length - 1);
  }

  /** Takes a request out of wherever it is in the queue. */
  remove(request: Request): void {
    const at = request.queueIndex;
    if (this.heap[at] !== request) throw new Error(`request ${request.requestId} is not in the queue`);
    request.queueIndex = -1;
    const last = this.heap.pop()!;
    if (last === request) return;
    this.siftDown(last, at);
    this.siftUp(last, last.queueIndex);
  }

  private siftUp(request: Request, from: number): void {
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.order(this.heap[parent]!, request) < 0) break;
      this.place(this.heap[parent]!, at);
      at = parent;
    }
    this.place(request, at);
  }

  private siftDown(request: Request, from: number): void {
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.heap.length) break;
      if (child + 1 < this.heap.length && this.order(this.heap[child + 1]!, this.heap[child]!) < 0) child++;
      if (this.order(request, this.heap[child]!) < 0) break;
      this.place(this.heap[child]!, at);
      at = child;
    }
    this.place(request, at);
  }

  private place(request: Request, at: number): void {
    this.heap[at] = request;
    request.queueIndex = at;
  }
}
