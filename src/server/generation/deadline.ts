import { ApiError } from '../errors.ts';
import type { ServerContext } from '../server-context.ts';

const RETRY_AFTER_SECONDS = '1';

/**
 * The deadline of `--request-timeout`, from now on.
 *
 * @param onExceeded called with the error for the client, at most once
 * @returns calls it off
 */
export function startDeadline({ config }: ServerContext, onExceeded: (error: ApiError) => void): () => void {
  const seconds = config.frontend.requestTimeout;
  if (seconds === null) return () => {};
  const message = `The request was not finished within ${seconds} s (--request-timeout) and has been aborted.`;
  const timer = setTimeout(() => {
    onExceeded(new ApiError(503, 'ServiceUnavailableError', message, null, { 'Retry-After': RETRY_AFTER_SECONDS }));
  }, seconds * 1000);
  return () => clearTimeout(timer);
}
