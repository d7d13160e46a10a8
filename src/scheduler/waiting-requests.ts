import type { Request } from './request.ts';
import { type RequestOrder, RequestQueue } from './request-queue.ts';

/** Waiting requests, those of each adapter in a queue of their own, so that one whose adapter has to wait is passed over without a search. */
export class WaitingRequests {
  /** By adapter; null: the base model. None is empty. */
  private readonly queues = new Map<number | null, RequestQueue>();
  private numRequests = 0;

  constructor(private readonly order: RequestOrder) {}

  get size(): number {
    return this.numRequests;
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
  }

  /** Takes a request out of wherever it is. */
  remove(request: Request): void {
    const id = adapterOf(request);
    const queue = this.queues.get(id);
    if (queue === undefined) throw new Error(`request ${request.requestId} is not waiting`);
    queue.remove(request);
    this.numRequests--;
    if (queue.size === 0) this.queues.delete(id);
  }

  /** The first in order of those whose adapter (null: none) passes; null where there is none. */
  peek(mayRun: (loraId: number | null) => boolean = () => true): Request | null {
    let first: Request | null = null;
    for (const [id, queue] of this.queues) {
      const head = queue.peek()!;
      if ((first === null || this.order(head, first) < 0) && mayRun(id)) first = head;
    }
    return first;
  }

  /** Names of the adapters that are waited for. */
  loraNames(): string[] {
    return [...this.queues.values()].flatMap((queue) => queue.peek()!.lora?.name ?? []);
  }
}

function adapterOf(request: Request): number | null {
  return request.lora?.id ?? null;
}
