/** The client's mistake: HTTP 400. `message` is complete; param and value are those of OpenAI's error object. */
export class ValidationError extends Error {
  constructor(
    message: string,
    readonly param: string | null = null,
    readonly value: unknown = undefined,
  ) {
    super(message);
    this.name = 'ValidationError';
  }
}
