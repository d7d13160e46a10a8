import { ClientConnection, type CoreLinkEnd } from '../../src/engine/core-link.ts';
import { CoreStatus } from '../../src/engine/core-status.ts';
import type { ClientMessage, EngineCoreOutput, EngineCoreRequest } from '../../src/engine/messages.ts';

/**
 * Entry point of a Worker that is an engine core whose model takes no time: each step gives every running request one token. It then waits until the client
 * has taken what it has, each client for itself, as if the model were what takes the time: a stream gets its tokens one by one, or `stepsAtOnce` by `stepsAtOnce`.
 */
declare const self: Worker;

const IDLE_SLEEP_MS = 100;
/** While the client has not taken the last step. */
const UNREAD_SLEEP_MS = 0.05;
/** Ordinary words of the demo's vocabulary. */
const FIRST_TOKEN_ID = 300;
const NUM_TOKEN_IDS = 1000;

export interface InstantCoreOptions {
  /** One for each API server. */
  ends: CoreLinkEnd[];
  /** Steps that are done each time a client looks. */
  stepsAtOnce: number;
}

interface Running {
  request: EngineCoreRequest;
  numTokens: number;
}

class InstantCore {
  private readonly status: CoreStatus;
  private readonly clients: readonly InstantClient[];
  /** What nobody rings: a core whose model computes is not woken by requests either. */
  private readonly computing = new Int32Array(new SharedArrayBuffer(4));

  constructor({ ends, stepsAtOnce }: InstantCoreOptions) {
    this.status = new CoreStatus(ends[0]!.status);
    this.clients = ends.map((end) => new InstantClient(new ClientConnection(end, this.status), stepsAtOnce));
  }

  run(): void {
    while (!this.clients.some((client) => client.isStopping)) {
      let progress: Progress = 'idle';
      for (const client of this.clients) {
        const own = client.turn();
        if (own === 'done' || progress === 'idle') progress = own;
      }
      if (progress === 'unread') Atomics.wait(this.computing, 0, 0, UNREAD_SLEEP_MS);
      else if (progress === 'idle') {
        this.status.sleep(IDLE_SLEEP_MS, () => this.clients.some((client) => client.hasInput));
      }
    }
  }
}

/** What became of a turn: steps, or none because the client has not read the last ones or has no requests. */
type Progress = 'done' | 'unread' | 'idle';

/** The requests of one API server. They don't wait for those of another one. */
class InstantClient {
  isStopping = false;
  private readonly running = new Map<number, Running>();

  constructor(
    private readonly connection: ClientConnection,
    private readonly stepsAtOnce: number,
  ) {}

  get hasInput(): boolean {
    return this.connection.hasInput;
  }

  turn(): Progress {
    for (let message = this.connection.receive(); message !== null; message = this.connection.receive()) {
      this.onMessage(message);
    }
    this.connection.flush();
    if (this.connection.hasUnreadOutput) return 'unread';
    if (this.running.size === 0) return 'idle';
    for (let i = 0; i < this.stepsAtOnce; i++) this.step();
    return 'done';
  }

  private onMessage(message: ClientMessage): void {
    if (message.type === 'add') this.running.set(message.request.handle, { request: message.request, numTokens: 0 });
    else if (message.type === 'abort') for (const handle of message.abort.handles) this.running.delete(handle);
    else this.isStopping = message.call.method === 'shutdown';
  }

  private step(): void {
    if (this.running.size === 0) return;
    const nowMs = Date.now();
    const outputs = [...this.running].map(([handle, running]) => this.advance(handle, running, nowMs));
    this.connection.send({
      type: 'outputs',
      outputs: { timestampMs: nowMs, outputs, numStepTokens: outputs.length, stats: null },
    });
  }

  private advance(handle: number, running: Running, nowMs: number): EngineCoreOutput {
    const isFirst = running.numTokens === 0;
    const isLast = ++running.numTokens >= running.request.samplingParams.maxTokens;
    if (isLast) this.running.delete(handle);
    return {
      handle,
      newTokenIds: [FIRST_TOKEN_ID + ((handle + running.numTokens * 7) % NUM_TOKEN_IDS)],
      newLogprobs: null,
      newPromptLogprobs: null,
      poolerOutput: null,
      finishReason: isLast ? 'length' : null,
      stopReason: null,
      numCachedTokens: 0,
      firstScheduledMs: isFirst ? nowMs : 0,
      numPreemptions: 0,
      failure: null,
    };
  }
}

self.onmessage = ({ data }: MessageEvent<InstantCoreOptions>) => new InstantCore(data).run();
