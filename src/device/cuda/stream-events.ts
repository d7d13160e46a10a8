import type { DeviceEvent } from '../device.ts';
import { CUDART_CONSTANTS, type CudaRuntime } from './cuda-runtime.ts';

interface RecordedEvent {
  number: DeviceEvent;
  event: number;
}

/** Points of one stream as ascending numbers, over a pool of CUDA events. Work is done in order, so a point reached means all before it are. */
export class StreamEvents {
  readonly #recorded: RecordedEvent[] = [];
  readonly #free: number[] = [];
  #next = 1;
  #reached = 0;

  constructor(
    private readonly runtime: CudaRuntime,
    private readonly stream: number,
  ) {}

  record(): DeviceEvent {
    if (this.#free.length === 0) this.#free.push(this.runtime.createEvent());
    const event = this.#free.at(-1)!;
    this.runtime.check('cudaEventRecord', this.runtime.functions.cudaEventRecord(event, this.stream));
    // Not before: what can't be recorded is closed with the free ones.
    this.#free.pop();
    this.#recorded.push({ number: this.#next, event });
    return this.#next++;
  }

  query(number: DeviceEvent): boolean {
    if (number <= this.#reached) return true;
    const code = this.runtime.functions.cudaEventQuery(this.#find(number));
    if (code === CUDART_CONSTANTS.cudaErrorNotReady) return false;
    this.runtime.check('cudaEventQuery', code);
    this.#reach(number);
    return true;
  }

  /** Throws the CudaError of work that failed. */
  wait(number: DeviceEvent): void {
    if (number <= this.#reached) return;
    this.runtime.check('cudaEventSynchronize', this.runtime.functions.cudaEventSynchronize(this.#find(number)));
    this.#reach(number);
  }

  close(): void {
    for (const { event } of this.#recorded) this.runtime.functions.cudaEventDestroy(event);
    for (const event of this.#free) this.runtime.functions.cudaEventDestroy(event);
    this.#recorded.length = 0;
    this.#free.length = 0;
  }

  #find(number: DeviceEvent): number {
    const found = this.#recorded.find((each) => each.number === number);
    if (!found) throw new Error(`event ${number} was not recorded on this stream`);
    return found.event;
  }

  #reach(number: DeviceEvent): void {
    this.#reached = number;
    while (this.#recorded.length > 0 && this.#recorded[0]!.number <= number)
      this.#free.push(this.#recorded.shift()!.event);
  }
}
