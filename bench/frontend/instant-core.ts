import { ClientConnection, type CoreLinkEnd } from '../../src/engine/core-link.ts';
import { CoreStatus } from '../../src/engine/core-status.ts';
import type { ClientMessage, EngineCoreOutput, EngineCoreRequest } from '../../src/engine/messages.ts';

/**
 * Entry point of a Worker that is an engine core whose model takes no time: each step gives every running request one token. It then waits until the client
 * has taken what it has, as if the model were what takes the time: a stream gets its tokens one by one, or `stepsAtOnce` by `stepsAtOnce`.
 */
declare const self: Worker;

const IDLE_SLEEP_MS = 100;
/** While the client has not taken the last step. */
const UNREAD_SLEEP_MS = 0.05;
/** Ordinary words of the demo's vocabulary. */
const FIRST_TOKEN_ID = 300;
const NUM_TOKEN_IDS = 1000;

export interface InstantCoreOptions {
  end: CoreLinkEnd;
  /** Steps that are done each time the client looks. */
  stepsAtOnce: number;
}

interface Running {
  request: EngineCoreRequest;
  numTokens: number;
}

class InstantCore {
  private readonly status: CoreStatus;
  private readonly connection: ClientConnection;
  private readonly running = new Map<number, Running>();
  /** What nobody rings: a core whose model computes is not woken by requests either. */
  private readonly computing = new Int32Array(new SharedArrayBuffer(4));
  private stopping = false;

  constructor(
    end: CoreLinkEnd,
    private readonly stepsAtOnce: number,
  ) {
    this.status = new CoreStatus(end.status);
    this.connection = new ClientConnection(end, this.status);
  }

  run(): void {
    while (!this.stopping) {
      for (let message = this.connection.receive(); message !== null; message = this.connection.receive()) {
        this.onMessage(message);
      }
      this.connection.flush();
      if (this.connection.hasUnreadOutput) Atomics.wait(this.computing, 0, 0, UNREAD_SLEEP_MS);
      else if (this.running.size > 0) for (let i = 0; i < this.stepsAtOnce; i++) this.step();
      else this.status.sleep(IDLE_SLEEP_MS, () => this.connection.hasInput);
    }
  }

  private onMessage(message: ClientMessage): void {
    if (message.type === 'add') this.running.set(message.request.handle, { request: message.request, numTokens: 0 });
    else if (message.type === 'abort') for (const handle of message.abort.handles) this.running.delete(handle);
    else this.stopping = message.call.method === 'shutdown';
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

self.onmessage = ({ data }: MessageEvent<InstantCoreOptions>) => new InstantCore(data.end, data.stepsAtOnce).run();
