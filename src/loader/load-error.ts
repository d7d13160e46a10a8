/** What an operator can mend: a wrong path, a broken or unreachable checkpoint, a missing token. The message is complete and names the file. */
export class LoadError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'LoadError';
  }
}
