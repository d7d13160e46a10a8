import type { BaoConfig } from '../config/bao-config.ts';
import type { LoRARequest } from './lora-request.ts';

/** An adapter that clients may ask for. */
export interface ServedAdapter extends LoRARequest {
  /** The path as the operator or the client wrote it. */
  root: string;
  /** Which of the base model's names it belongs to. */
  parent: string;
}

/** Words in front of the list: who writes, how often it was written (odd: just now), its length in bytes, the last id given out. */
const LOCK = 0;
const VERSION = 1;
const LENGTH = 2;
const LAST_ID = 3;
const HEADER_BYTES = 16;
const CAPACITY_BYTES = 1 << 20;
const LOCK_POLL_MS = 2;

/**
 * The adapters that are served, as all front ends of a process know them: the list lies in shared memory, so that a name that one has loaded is known
 * to all before the client hears of it. Only the holder of the lock writes.
 */
export class AdapterTable {
  private readonly words: Int32Array;
  private readonly bytes: Uint8Array;
  /** The list as it was read last. */
  private adapters: ReadonlyMap<string, ServedAdapter> = new Map();
  private version = 0;

  /** @param buffer of another thread's table */
  constructor(readonly buffer = new SharedArrayBuffer(HEADER_BYTES + CAPACITY_BYTES)) {
    this.words = new Int32Array(buffer, 0, HEADER_BYTES / 4);
    this.bytes = new Uint8Array(buffer, HEADER_BYTES);
  }

  /** A table with what `--lora-modules` names. */
  static fromConfig({ lora, model }: BaoConfig): AdapterTable {
    const table = new AdapterTable();
    const served = lora.modules.map(({ baseModelName, ...module }) => ({
      ...module,
      parent: baseModelName ?? model.servedModelName[0]!,
    }));
    if (served.length === 0) return table;
    Atomics.store(table.words, LAST_ID, served.length);
    table.write(served);
    return table;
  }

  /** In the order of their loading. */
  list(): ServedAdapter[] {
    this.refresh();
    return [...this.adapters.values()];
  }

  get(name: string): ServedAdapter | null {
    this.refresh();
    return this.adapters.get(name) ?? null;
  }

  /** An id that no adapter of this process had before. */
  newId(): number {
    return Atomics.add(this.words, LAST_ID, 1) + 1;
  }

  /** Runs `change` while no other front end changes the table. */
  async exclusively<Result>(change: () => Promise<Result>): Promise<Result> {
    while (Atomics.compareExchange(this.words, LOCK, 0, 1) !== 0) await Bun.sleep(LOCK_POLL_MS);
    try {
      return await change();
    } finally {
      Atomics.store(this.words, LOCK, 0);
    }
  }

  /** Whether the list would still have room for another adapter. */
  hasRoomFor(adapter: ServedAdapter): boolean {
    return encode([...this.list(), adapter]).byteLength <= CAPACITY_BYTES;
  }

  /** Puts an adapter in, in place of one of the same name. Only within `exclusively`. */
  set(adapter: ServedAdapter): void {
    this.write([...new Map(this.list().map((each) => [each.name, each])).set(adapter.name, adapter).values()]);
  }

  /** Only within `exclusively`. */
  delete(name: string): void {
    this.write(this.list().filter((adapter) => adapter.name !== name));
  }

  private write(adapters: readonly ServedAdapter[]): void {
    const encoded = encode(adapters);
    Atomics.add(this.words, VERSION, 1);
    this.bytes.set(encoded);
    Atomics.store(this.words, LENGTH, encoded.byteLength);
    Atomics.add(this.words, VERSION, 1);
  }

  private refresh(): void {
    for (;;) {
      const version = Atomics.load(this.words, VERSION);
      if (version === this.version) return;
      // A write takes microseconds.
      if (version % 2 !== 0) continue;
      const copy = this.bytes.slice(0, Atomics.load(this.words, LENGTH));
      if (Atomics.load(this.words, VERSION) !== version) continue;
      const adapters = JSON.parse(new TextDecoder().decode(copy)) as ServedAdapter[];
      this.adapters = new Map(adapters.map((adapter) => [adapter.name, adapter]));
      this.version = version;
      return;
    }
  }
}

function encode(adapters: readonly ServedAdapter[]): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(adapters));
}
