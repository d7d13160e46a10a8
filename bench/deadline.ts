/** Something took longer than it may. */
export class DeadlineError extends Error {
  override readonly name = 'DeadlineError';
}

/**
 * The action's value. Its signal is aborted with a DeadlineError, "WHAT took longer than SECONDS s.", when that is so, and with the outer signal's reason when
 * that is aborted: the action then has to reject.
 */
export async function within<Value>(
  { seconds, what, signal }: { seconds: number; what: string; signal: AbortSignal },
  action: (signal: AbortSignal) => Promise<Value>,
): Promise<Value> {
  signal.throwIfAborted();
  const controller = new AbortController();
  const abort = () => controller.abort(signal.reason);
  const timer = setTimeout(() => {
    controller.abort(new DeadlineError(`${what} took longer than ${seconds} s.`));
  }, seconds * 1000);
  signal.addEventListener('abort', abort);
  try {
    return await action(controller.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  }
}

/** Settles as the promise does, or rejects with the signal's reason where that is aborted first; nobody waits for the promise then. */
export async function unlessAborted<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  if (signal.aborted) abort();
  signal.addEventListener('abort', abort);
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
