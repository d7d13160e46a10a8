import type { OutputItem, ResponseBody } from '../answers/response-body.ts';
import { ApiError } from '../errors.ts';
import type { ConversationItem } from '../protocol/responses-input.ts';
import type { BackgroundResponse } from './background-response.ts';

/** A response that clients may come back to. */
export interface StoredResponse {
  readonly body: ResponseBody;
  /** Everything up to and with its output, but for the instructions: those are each request's own. */
  readonly conversation: readonly ConversationItem[];
  /** null: it was made while its client waited. */
  readonly run: BackgroundResponse | null;
}

interface Entry {
  stored: StoredResponse;
  size: number;
}

/** Bounds of what is kept; what has been asked for least recently goes first. */
const MAX_RESPONSES = 4096;
const MAX_CHARACTERS = 64 * 2 ** 20;

/** Responses that have finished, in memory, within bounds of their number and size; and those that run in the background. */
export class ResponseStore {
  /** In the order of their last use. */
  readonly #finished = new Map<string, Entry>();
  readonly #running = new Map<string, BackgroundResponse>();
  /** Output items of finished responses: id to the response's. */
  readonly #responseOfItem = new Map<string, string>();
  #size = 0;

  constructor(private readonly limits = { maxResponses: MAX_RESPONSES, maxCharacters: MAX_CHARACTERS }) {}

  /** Responses that run in the background. */
  get numRunning(): number {
    return this.#running.size;
  }

  get(id: string): StoredResponse | null {
    const running = this.#running.get(id);
    if (running !== undefined) return running;
    const entry = this.#finished.get(id);
    if (entry === undefined) return null;
    this.#finished.delete(id);
    this.#finished.set(id, entry);
    return entry.stored;
  }

  /** An output item that a client refers to by its id. */
  findItem(itemId: string): OutputItem | null {
    const responseId = this.#responseOfItem.get(itemId);
    const stored = responseId === undefined ? null : this.get(responseId);
    return stored?.body.output.find(({ id }) => id === itemId) ?? null;
  }

  addRunning(response: BackgroundResponse): void {
    this.#running.set(response.body.id, response);
  }

  /** For one that couldn't start. */
  dropRunning(response: BackgroundResponse): void {
    this.#running.delete(response.body.id);
  }

  /** Keeps a response that has finished; one that is larger than all that may be kept is not. */
  put(stored: StoredResponse): void {
    const { body, conversation, run } = stored;
    this.#running.delete(body.id);
    this.#remove(body.id);
    // Conversations share their items; counting them with each is the safe side.
    const size = JSON.stringify(body).length + JSON.stringify(conversation).length + (run?.eventsSize ?? 0);
    if (size > this.limits.maxCharacters) return;
    this.#finished.set(body.id, { stored, size });
    this.#size += size;
    for (const item of body.output) this.#responseOfItem.set(item.id, body.id);
    this.#evict();
  }

  /** Forgets one, whether it has finished or runs. */
  delete(id: string): void {
    this.#running.delete(id);
    this.#remove(id);
  }

  #evict(): void {
    for (const id of this.#finished.keys()) {
      if (this.#finished.size <= this.limits.maxResponses && this.#size <= this.limits.maxCharacters) return;
      this.#remove(id);
    }
  }

  #remove(id: string): void {
    const entry = this.#finished.get(id);
    if (entry === undefined) return;
    this.#finished.delete(id);
    this.#size -= entry.size;
    for (const item of entry.stored.body.output) this.#responseOfItem.delete(item.id);
  }
}

/** @throws ApiError 404 */
export function findResponse(store: ResponseStore, id: string, param = 'response_id'): StoredResponse {
  const stored = store.get(id);
  if (stored !== null) return stored;
  const message = `Response with id '${id.slice(0, 100)}' not found.`;
  throw new ApiError(404, 'invalid_request_error', message, param);
}
