const STOP_TIMEOUT_MS = 5000;
const POLL_MS = 20;

/** Windows has neither groups of processes nor signals that stop and continue them: there only the process itself is ended, and nothing is paused. */
const HAS_GROUPS = process.platform !== 'win32';

/**
 * Ends a group when nobody holds the other end of its input any more: this process may be killed or crash, and a group of its own, stopped perhaps, would be
 * there for ever. It is told the group's number when there is one.
 */
const GUARD = 'read group && { read _; kill -s KILL -- "-$group"; }';

type Readable = Bun.SpawnOptions.Readable;

/** A process with all processes that it starts, which are paused, continued and ended together; they end with this process, whatever ends it. */
export class ProcessGroup<Out extends Readable = Readable, Err extends Readable = Readable> {
  readonly child: Bun.Subprocess<'ignore', Out, Err>;
  /** When the process was started, on the clock of `performance.now()`. */
  readonly started: number;
  private readonly guard: Bun.Subprocess<'pipe', 'ignore', 'ignore'> | null;

  constructor(command: readonly string[], options: Bun.SpawnOptions.SpawnOptions<'ignore', Out, Err>) {
    this.guard = HAS_GROUPS ? startGuard() : null;
    this.started = performance.now();
    this.child = Bun.spawn([...command], { ...options, stdin: 'ignore', detached: HAS_GROUPS });
    this.guard?.stdin.write(`${this.child.pid}\n`);
    this.guard?.stdin.flush();
  }

  /** Its processes take no processor time until `resume`, and act on nothing but SIGKILL. */
  pause(): void {
    if (HAS_GROUPS) this.signal('SIGSTOP');
  }

  resume(): void {
    if (HAS_GROUPS) this.signal('SIGCONT');
  }

  /**
   * Asks the process to end, paused or not, and some seconds later whatever of the group is left; kills what is there after some more. Python's tracker of
   * shared memory, which only goes when the others have gone, gives that back.
   */
  async stop(): Promise<void> {
    this.resume();
    this.child.kill('SIGTERM');
    await Promise.race([this.child.exited, Bun.sleep(STOP_TIMEOUT_MS)]);
    if (HAS_GROUPS) await this.endRest();
    else this.child.kill('SIGKILL');
    await this.child.exited;
    this.guard?.kill('SIGKILL');
  }

  private async endRest(): Promise<void> {
    this.signal('SIGTERM');
    const deadline = performance.now() + STOP_TIMEOUT_MS;
    while (this.signal(0) && performance.now() < deadline) await Bun.sleep(POLL_MS);
    this.signal('SIGKILL');
  }

  /** 0: none. Whether there is a process to get it. */
  private signal(name: 'SIGSTOP' | 'SIGCONT' | 'SIGTERM' | 'SIGKILL' | 0): boolean {
    try {
      return process.kill(-this.child.pid, name);
    } catch (error) {
      // macOS says EPERM where the process has not been waited for yet.
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'ESRCH' && code !== 'EPERM') throw error;
      return false;
    }
  }
}

function startGuard(): Bun.Subprocess<'pipe', 'ignore', 'ignore'> {
  // In a session of its own, so that Ctrl-C does not end it first.
  return Bun.spawn(['sh', '-c', GUARD], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
}
