import type { GenerateRequest } from '../../engine/engine-client.ts';
import { logger } from '../../logging/logger.ts';
import type { ResponseBody } from '../answers/response-body.ts';
import type { ResponseProgress } from '../answers/response-progress.ts';
import { isUnexpected, toApiError } from '../errors.ts';
import { startGeneration } from '../generation/generation.ts';
import { SseWriter } from '../generation/sse-writer.ts';
import type { ConversationItem } from '../protocol/responses-input.ts';
import type { ServerContext } from '../server-context.ts';
import { conversationItem } from './conversation-item.ts';

const log = logger('server');

export interface BackgroundOptions {
  /** What comes before the output. */
  input: readonly ConversationItem[];
  /** Whether its events are kept, so that clients can follow it. */
  keepsEvents: boolean;
  /** Of those who follow it, as SseWriter's. */
  keepAliveMs: number;
  /** Called once it has ended, in whatever way. */
  onEnd(response: BackgroundResponse): void;
}

/** A StoredResponse that is made whether or not somebody waits for it. */
export class BackgroundResponse {
  readonly #events: string[] = [];
  readonly #followers = new Set<SseWriter>();
  #isOver = false;
  #abort = () => {};

  constructor(
    private readonly progress: ResponseProgress,
    private readonly options: BackgroundOptions,
  ) {
    this.#tell(progress.start());
  }

  get body(): ResponseBody {
    return this.progress.body;
  }

  get run(): BackgroundResponse {
    return this;
  }

  get conversation(): readonly ConversationItem[] {
    return [...this.options.input, ...this.body.output.map(conversationItem)];
  }

  /** Whether there is something to follow. */
  get keepsEvents(): boolean {
    return this.options.keepsEvents;
  }

  /** Characters of the events that are kept. */
  get eventsSize(): number {
    return this.#events.reduce((sum, event) => sum + event.length, 0);
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** @throws what `EngineClient.addRequest` throws */
  start(context: ServerContext, request: GenerateRequest): void {
    this.#abort = startGeneration(context, [request], {
      onOutput: (_, output) => this.#tell(this.progress.push(output)),
      onEnd: () => this.#end(this.progress.finish()),
      onError: (error) => {
        if (isUnexpected(error)) log.error(`background response ${this.body.id} has failed`, { error });
        this.#end(this.progress.fail(toApiError(error, this.body.id, true)));
      },
    });
  }

  cancel(): void {
    this.#abort();
    this.body.status = 'cancelled';
    this.#end([]);
  }

  /** @returns a stream of the events behind number `startingAfter`, those to come included; it ends with the response */
  follow(startingAfter: number, signal: AbortSignal): Promise<Response> {
    const leave = () => this.#followers.delete(writer);
    const writer = new SseWriter({
      keepAliveMs: this.options.keepAliveMs,
      onCancel: leave,
      onOverflow: () => {
        leave();
        writer.end();
      },
    });
    writer.write(this.#events.slice(startingAfter + 1).join(''));
    if (this.#isOver) writer.end();
    else this.#followers.add(writer);
    signal.addEventListener('abort', () => writer.cancel(), { once: true });
    return writer.response();
  }

  #tell(events: string[]): void {
    if (!this.options.keepsEvents || events.length === 0) return;
    this.#events.push(...events);
    const text = events.join('');
    for (const follower of this.#followers) follower.write(text);
  }

  #end(events: string[]): void {
    this.#tell(events);
    this.#isOver = true;
    for (const follower of this.#followers) follower.end();
    this.#followers.clear();
    this.options.onEnd(this);
  }
}
