/** What a core is doing, as it says itself. */
export const CORE_STATES = ['starting', 'idle', 'busy', 'sleeping', 'stopped', 'failed'] as const;
export type CoreState = (typeof CORE_STATES)[number];

/** A core without work looks for some after so long, even if no doorbell rings. */
export const MAX_IDLE_MS = 1000;

const STATE = 0;
const LOOP_TURNS = 1;
const PROGRESS = 2;
const NUM_RUNNING = 3;
const NUM_WAITING = 4;
const KV_USAGE_PPM = 5;
const DOORBELL = 16;
const SLEEPING = 17;
/** One word for each client: requests received from it. */
const RECEIVED = 32;

/**
 * The shared words of one core: its heartbeat and load, which every client and the watch read without a message, and the doorbell that wakes it.
 * The core writes all but the doorbell.
 */
export class CoreStatus {
  private readonly words: Int32Array;

  constructor(readonly buffer: SharedArrayBuffer) {
    this.words = new Int32Array(buffer);
  }

  static create(numClients: number): CoreStatus {
    return new CoreStatus(new SharedArrayBuffer((RECEIVED + numClients) * 4));
  }

  get state(): CoreState {
    return CORE_STATES[Atomics.load(this.words, STATE)]!;
  }

  set state(state: CoreState) {
    Atomics.store(this.words, STATE, CORE_STATES.indexOf(state));
  }

  /** Turns of the busy loop, wrapping. */
  get loopTurns(): number {
    return Atomics.load(this.words, LOOP_TURNS);
  }

  countLoopTurn(): void {
    Atomics.add(this.words, LOOP_TURNS, 1);
  }

  /** Tokens computed for requests, wrapping: stands still when requests run but none gets on. */
  get progress(): number {
    return Atomics.load(this.words, PROGRESS);
  }

  addProgress(tokens: number): void {
    Atomics.add(this.words, PROGRESS, tokens);
  }

  get numRunning(): number {
    return Atomics.load(this.words, NUM_RUNNING);
  }

  get numWaiting(): number {
    return Atomics.load(this.words, NUM_WAITING);
  }

  /** 0..1 */
  get kvCacheUsage(): number {
    return Atomics.load(this.words, KV_USAGE_PPM) / 1e6;
  }

  setLoad(numRunning: number, numWaiting: number, kvCacheUsage: number): void {
    Atomics.store(this.words, NUM_RUNNING, numRunning);
    Atomics.store(this.words, NUM_WAITING, numWaiting);
    Atomics.store(this.words, KV_USAGE_PPM, Math.round(kvCacheUsage * 1e6));
  }

  received(clientIndex: number): number {
    return Atomics.load(this.words, RECEIVED + clientIndex);
  }

  countReceived(clientIndex: number): void {
    Atomics.add(this.words, RECEIVED + clientIndex, 1);
  }

  /** A client: there is something in a ring. Costs a wake-up only for the first to ring while the core sleeps. */
  ringDoorbell(): void {
    Atomics.add(this.words, DOORBELL, 1);
    if (Atomics.exchange(this.words, SLEEPING, 0) === 1) Atomics.notify(this.words, DOORBELL);
  }

  /** The core: sleeps until the doorbell rings, `hasWork` (asked after the core counts as asleep) or the time is over. */
  sleep(timeoutMs: number, hasWork: () => boolean): void {
    const heard = Atomics.load(this.words, DOORBELL);
    Atomics.store(this.words, SLEEPING, 1);
    if (!hasWork()) Atomics.wait(this.words, DOORBELL, heard, timeoutMs);
    Atomics.store(this.words, SLEEPING, 0);
  }
}
