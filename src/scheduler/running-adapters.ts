import type { Request } from './request.ts';

/** Counts the adapters of running requests, of which there may only be so many at a time. */
export class RunningAdapters {
  private readonly requestsOf = new Map<number, { name: string; count: number }>();

  constructor(private readonly maxLoras: number) {}

  /** Whether a request with this adapter (null: none) may join the running ones. */
  hasRoomFor(loraId: number | null): boolean {
    return loraId === null || this.requestsOf.has(loraId) || this.requestsOf.size < this.maxLoras;
  }

  add({ lora }: Request): void {
    if (lora === null) return;
    const known = this.requestsOf.get(lora.id);
    if (known === undefined) this.requestsOf.set(lora.id, { name: lora.name, count: 1 });
    else known.count++;
  }

  remove({ lora }: Request): void {
    if (lora === null) return;
    const known = this.requestsOf.get(lora.id)!;
    if (--known.count === 0) this.requestsOf.delete(lora.id);
  }

  names(): string[] {
    return [...this.requestsOf.values()].map(({ name }) => name);
  }
}
