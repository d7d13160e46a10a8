import type { CpuLibrary } from './cpu-library.ts';
import type { Recorder } from './step-recordings.ts';

/** The address of a list of commands. */
type CommandList = number;

/** Steps as lists of commands that one call enqueues. A list has its ops' arguments as they were checked when it was recorded. */
export class CpuCommandLists implements Recorder<CommandList> {
  constructor(
    private readonly library: CpuLibrary,
    private readonly stream: number,
  ) {}

  record(enqueue: () => void, oldest: CommandList | null): CommandList | null {
    if (oldest !== null) this.discard(oldest);
    const list = this.library.bao_stream_begin_list(this.stream);
    if (!list) return null;
    const isWhole = this.fill(enqueue);
    this.library.bao_stream_end_list(this.stream);
    if (isWhole) return list;
    this.discard(list);
    return null;
  }

  /** False where there is no memory for all of the list: what is recorded was enqueued just before, so that nothing else can be wrong. */
  private fill(enqueue: () => void): boolean {
    try {
      enqueue();
      return true;
    } catch {
      return false;
    }
  }

  replay(list: CommandList): void {
    this.library.bao_stream_replay(this.stream, list);
  }

  discard(list: CommandList): void {
    this.library.bao_stream_destroy_list(this.stream, list);
  }
}
