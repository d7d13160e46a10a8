import { threadId } from 'node:worker_threads';
import { configureLogging, logger } from '../../src/logging/logger.ts';

/** Two Workers that log long lines at the same time. */
if (Bun.isMainThread) {
  for (let worker = 0; worker < 2; worker++) new Worker(import.meta.url);
} else {
  configureLogging({ format: 'json', thread: String(threadId) });
  for (let line = 0; line < 50; line++) logger('test').info('x'.repeat(3000));
}
