import { CallNotes, type Calls } from './call-notes.ts';
import type { Ops } from './device.ts';

/** How a device makes one thing of many calls. */
export interface Recorder<Recording> {
  /**
   * What `enqueue` calls, recorded and not run. `oldest`, if there is one, has to go: it may become the new one. null: it can't be had, and no more
   * are to be tried.
   */
  record(enqueue: () => void, oldest: Recording | null): Recording | null;
  /** Enqueues what was recorded. */
  replay(recording: Recording): void;
  /** Frees a recording. What was enqueued of it may still run. */
  discard(recording: Recording): void;
}

interface Kept<Recording> {
  readonly calls: Calls;
  readonly recording: Recording;
}

/**
 * Steps that are launched as one when they come again. A recording is found by the calls that it consists of, not by a name that a caller gives it:
 * what is launched is what was asked for, whatever changed in between. A step that is new is enqueued call by call, and then recorded for the next time
 * while the device works on it.
 */
export class StepRecordings<Recording> {
  /** The ops, which within `run` are only noted. */
  readonly ops: Ops;
  private readonly notes: CallNotes;
  /** The one used last first. */
  private readonly kept: Kept<Recording>[] = [];
  private isRecording: boolean;

  /** @param maxRecordings how many are kept; 0: none is made */
  constructor(
    ops: Ops,
    private readonly recorder: Recorder<Recording>,
    private readonly maxRecordings: number,
  ) {
    this.notes = new CallNotes(ops);
    this.isRecording = maxRecordings > 0;
    this.ops = this.isRecording ? this.notes.ops : ops;
  }

  recordings(): Recording[] {
    return this.kept.map(({ recording }) => recording);
  }

  /** Enqueues the ops that `enqueue` calls. Throws what they throw. */
  run<Result>(enqueue: () => Result): Result {
    if (this.maxRecordings === 0) return enqueue();
    const { calls, result } = this.notes.take(enqueue);
    const place = this.placeOf(calls);
    if (place >= 0) {
      const [known] = this.kept.splice(place, 1);
      this.kept.unshift(known!);
      this.recorder.replay(known!.recording);
      return result;
    }
    this.notes.make(calls);
    if (this.isRecording) this.record(calls.slice());
    return result;
  }

  /** Makes no more recordings. */
  stop(): void {
    this.isRecording = false;
  }

  /** Forgets all recordings. */
  clear(): void {
    for (const { recording } of this.kept) this.recorder.discard(recording);
    this.kept.length = 0;
  }

  /** -1: there is no recording of these calls. Others differ early: they are of another size, or of other inputs. */
  private placeOf(calls: Calls): number {
    for (let i = 0; i < this.kept.length; i++) if (isSame(this.kept[i]!.calls, calls)) return i;
    return -1;
  }

  private record(calls: Calls): void {
    const oldest = this.kept.length >= this.maxRecordings ? this.kept.pop()! : null;
    const recording = this.recorder.record(() => this.notes.make(calls), oldest?.recording ?? null);
    if (recording === null) this.stop();
    else this.kept.unshift({ calls, recording });
  }
}

function isSame(a: Calls, b: Calls): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
