import {
  EngineDeadError,
  type PoolingRequest,
  type PoolingRequestOutput,
  RequestEndedError,
} from '../../engine/engine-client.ts';
import { ClientDisconnectedError, toApiError } from '../errors.ts';
import { startDeadline } from '../generation/deadline.ts';
import { failureOf } from '../generation/generation.ts';
import type { ServerContext } from '../server-context.ts';

/**
 * Runs requests together and gives their outputs in their order. Those that still run are aborted when one fails, and when `signal` aborts.
 *
 * @throws ClientDisconnectedError, what `EngineClient.addPoolingRequest` throws, and what the engine reports
 */
export async function collectPooled(
  context: ServerContext,
  requests: readonly PoolingRequest[],
  signal: AbortSignal,
): Promise<PoolingRequestOutput[]> {
  const { engine, config, load } = context;
  if (signal.aborted) throw new ClientDisconnectedError();
  const tracks = config.frontend.enableServerLoadTracking;
  const running = new Set(requests.map(({ requestId }) => requestId));
  const outputs: PoolingRequestOutput[] = [];
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = () => reject(new ClientDisconnectedError());
  signal.addEventListener('abort', onAbort, { once: true });
  const callOff = startDeadline(context, reject);
  if (tracks) load.add(1);
  try {
    requests.forEach((request, index) => {
      engine.addPoolingRequest(request, {
        onOutput: (output) => {
          outputs[index] = output;
          running.delete(request.requestId);
          if (running.size === 0) resolve();
        },
        onError: (error) => reject(toAnswer(error)),
      });
    });
    if (requests.length > 0) await promise;
    return outputs;
  } finally {
    signal.removeEventListener('abort', onAbort);
    callOff();
    if (tracks) load.add(-1);
    for (const id of running) engine.abort(id);
  }
}

function toAnswer(error: Error): Error {
  if (error instanceof RequestEndedError) return failureOf(error) ?? error;
  // The request had been accepted: a dead engine is a failure now, not a refusal.
  return error instanceof EngineDeadError ? toApiError(error, '', true) : error;
}
