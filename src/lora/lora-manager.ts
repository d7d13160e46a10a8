import { LoadError } from '../loader/load-error.ts';
import { logger } from '../logging/logger.ts';
import { openAdapterWeights } from './adapter-folder.ts';
import { type AdapterWeights, collectAdapterWeights } from './adapter-weights.ts';
import type { LoRASlot } from './lora-batch.ts';
import { LoRALoadError, readingAdapter } from './lora-error.ts';
import type { LoRALayers } from './lora-layers.ts';
import type { LoRARequest } from './lora-request.ts';
import { readPeftConfig } from './peft-config.ts';

const log = logger('lora');

/** Removed adapters whose ids are remembered: requests that wait with one that was removed before are few. */
const MAX_REMOVED = 1024;

interface ResidentAdapter extends LoRASlot {
  /** Requests in the worker that run with it. */
  numUsers: number;
  /** It goes as soon as nobody uses it. */
  isRemoved: boolean;
}

/**
 * The adapters of one worker. As many are in memory as there are slots; one that is asked for and not there is read from its folder again, in place of
 * the one that was not used for the longest time.
 */
export class LoRAManager {
  /** By id, least recently used first. */
  private readonly residents = new Map<number, ResidentAdapter>();
  private readonly freeSlots: number[];
  /** Ids whose files could not be read again: what they gave before would no longer be what they give. */
  private readonly broken = new Set<number>();
  /**
   * Ids that were removed, the oldest first: what a request that waited meanwhile has read again goes with that request. An id never comes back; one that
   * is forgotten here stays in memory until another adapter takes its place.
   */
  private readonly removed = new Set<number>();

  constructor(
    private readonly layers: LoRALayers,
    private readonly maxRank: number,
  ) {
    this.freeSlots = Array.from({ length: layers.numSlots }, (_, i) => layers.numSlots - 1 - i);
  }

  /** Ids in memory, least recently used first. */
  get residentIds(): number[] {
    return [...this.residents.keys()];
  }

  /**
   * Reads and checks an adapter, and keeps it in memory if there is a place that nobody uses.
   *
   * @throws LoRALoadError
   */
  load(request: LoRARequest): void {
    const started = performance.now();
    const isResident = this.read(request, (weights) => this.place(request.id, weights)) !== null;
    const ms = Math.round(performance.now() - started);
    log.debug(`Read adapter ${request.name}${isResident ? '' : ', which has to wait for a place'}`, { ms });
  }

  /** Frees what an adapter holds, once no request in the worker uses it. Requests that still come with it are served, and nothing is kept after them. */
  remove(id: number): void {
    this.removed.add(id);
    if (this.removed.size > MAX_REMOVED) this.forgetOldest();
    const resident = this.residents.get(id);
    if (resident === undefined) return;
    resident.isRemoved = true;
    if (resident.numUsers === 0) this.evict(id, resident);
  }

  /**
   * The adapter's slot for a request that starts; the adapter stays in memory until `release`.
   *
   * @throws LoRALoadError where it has to be read and can't be, now or once before
   */
  acquire(request: LoRARequest): LoRASlot {
    const resident = this.residents.get(request.id) ?? this.readAgain(request);
    resident.numUsers++;
    this.residents.delete(request.id);
    this.residents.set(request.id, resident);
    return resident;
  }

  release(id: number): void {
    const resident = this.residents.get(id);
    if (resident === undefined || resident.numUsers === 0)
      throw new Error(`adapter ${id} was released and is not in use`);
    resident.numUsers--;
    if (resident.numUsers === 0 && resident.isRemoved) this.evict(id, resident);
  }

  /** Frees what all adapters hold. Called with no request in the worker; those that ask for an adapter later have it read again. */
  evictAll(): void {
    for (const [id, resident] of this.residents) this.evict(id, resident);
  }

  private forgetOldest(): void {
    const oldest = this.removed.values().next().value!;
    this.removed.delete(oldest);
    this.broken.delete(oldest);
  }

  private readAgain(request: LoRARequest): ResidentAdapter {
    if (this.broken.has(request.id)) {
      throw new LoRALoadError(request.name, 'its files could not be read when it was needed again. Load it anew.');
    }
    try {
      const resident = this.read(request, (weights) => this.place(request.id, weights));
      // The scheduler never lets more adapters run at once than there are slots.
      if (resident === null) throw new Error(`all ${this.layers.numSlots} adapters in memory are in use`);
      return resident;
    } catch (error) {
      if (error instanceof LoRALoadError) {
        this.broken.add(request.id);
        log.error(error.message);
      }
      throw error;
    }
  }

  private read<Result>(request: LoRARequest, use: (weights: AdapterWeights) => Result): Result {
    return readingAdapter(request, () => {
      const config = readPeftConfig(request.path);
      const source = openAdapterWeights(request.path);
      try {
        return use(collectAdapterWeights(source, config, this.layers.modules(), this.maxRank));
      } finally {
        source.close();
      }
    });
  }

  /** null where every place is in use. */
  private place(id: number, weights: AdapterWeights): ResidentAdapter | null {
    const slot = this.freeSlots.pop() ?? this.evictOldest();
    if (slot === null) return null;
    this.fill(slot, weights);
    const rank = Math.max(...[...weights.linear.values()].map((module) => module.rank));
    const resident = { slot, rank, numUsers: 0, isRemoved: this.removed.has(id) };
    this.residents.set(id, resident);
    return resident;
  }

  private fill(slot: number, weights: AdapterWeights): void {
    try {
      this.layers.fill(slot, weights);
    } catch (error) {
      this.layers.clear(slot);
      this.freeSlots.push(slot);
      throw new LoadError((error as Error).message, { cause: error });
    }
  }

  private evictOldest(): number | null {
    for (const [id, resident] of this.residents) {
      if (resident.numUsers > 0) continue;
      this.evict(id, resident);
      return this.freeSlots.pop()!;
    }
    return null;
  }

  private evict(id: number, { slot }: ResidentAdapter): void {
    this.residents.delete(id);
    this.layers.clear(slot);
    this.freeSlots.push(slot);
  }
}
