/**
 * The data of server-sent events, parsed, until `[DONE]` or the stream's end.
 *
 * @throws Error with the server's words for an event that is an error
 */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<unknown, void, void> {
  const decoder = new TextDecoder();
  let text = '';
  for await (const bytes of body) {
    text += decoder.decode(bytes, { stream: true });
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const event = text.slice(0, end).trim();
      text = text.slice(end + 2);
      if (!event.startsWith('data: ')) continue;
      const data = event.slice('data: '.length);
      if (data === '[DONE]') return;
      const parsed: unknown = JSON.parse(data);
      const failure = errorMessage(parsed);
      if (failure !== null) throw new Error(failure);
      yield parsed;
    }
  }
}

/** The message of OpenAI's error object; null for anything else. */
export function errorMessage(body: unknown): string | null {
  const { error } = (body ?? {}) as { error?: { message?: unknown } | string };
  if (typeof error === 'string') return error;
  return typeof error?.message === 'string' ? error.message : null;
}
