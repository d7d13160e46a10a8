import { afterAll, beforeAll, describe, expect, test } from 'bun:test';
import { SequenceTimes } from '../../src/engine/observer.ts';
import { DEFAULT_SAMPLING_PARAMS } from '../../src/sampling/sampling-params.ts';
import { RequestTracer } from '../../src/tracing/request-tracer.ts';

/** A collector that keeps what it was sent. */
const received: { path: string; type: string | null; body: Buffer }[] = [];
let collector: Bun.Server<undefined>;
beforeAll(() => {
  collector = Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: async (request) => {
      const body = Buffer.from(await request.arrayBuffer());
      received.push({ path: new URL(request.url).pathname, type: request.headers.get('content-type'), body });
      return new Response(new Uint8Array());
    },
  });
});
afterAll(() => collector.stop(true));

function finished(traceHeaders: { traceparent: string; tracestate: string | null } | null) {
  const times = new SequenceTimes(1_700_000_000_000);
  times.onFirstToken(1_700_000_000_100, 1_700_000_000_250);
  times.onToken(1_700_000_000_400);
  return {
    request: {
      requestId: 'cmpl-42',
      promptTokenIds: Int32Array.of(1, 2, 3),
      traceHeaders,
    },
    params: { ...DEFAULT_SAMPLING_PARAMS, maxTokens: 16 },
    finishReason: 'stop' as const,
    times,
    finishedMs: 1_700_000_000_400,
    maxGenerationTokens: null,
    numGenerationTokens: 2,
    numPreemptions: 0,
  };
}

describe('request tracer', () => {
  test("a finished sequence becomes a span in the client's trace, with vLLM's attributes", async () => {
    const tracer = new RequestTracer(`http://127.0.0.1:${collector.port}/v1/traces`, 'demo');
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
    tracer.onFinished(finished({ traceparent: `00-${traceId}-00f067aa0ba902b7-01`, tracestate: null }));
    await tracer.close();
    expect(received).toHaveLength(1);
    const { path, type, body } = received[0]!;
    expect(path).toBe('/v1/traces');
    expect(type).toBe('application/x-protobuf');
    // Ids are raw bytes in the protobuf, names and strings plain text.
    expect(body.includes(Buffer.from(traceId, 'hex'))).toBe(true);
    expect(body.includes(Buffer.from('00f067aa0ba902b7', 'hex'))).toBe(true);
    for (const text of [
      'llm_request',
      'bao',
      'cmpl-42',
      'gen_ai.usage.prompt_tokens',
      'gen_ai.usage.completion_tokens',
      'gen_ai.latency.time_to_first_token',
      'gen_ai.latency.time_in_queue',
      'gen_ai.latency.e2e',
    ]) {
      expect(body.includes(text), text).toBe(true);
    }
    const seconds = (value: number) => Buffer.from(new Float64Array([value]).buffer);
    expect(body.includes(seconds(0.25)), 'time to first token').toBe(true);
    expect(body.includes(seconds(0.4)), 'e2e').toBe(true);
  });

  test('a collector that is not there does not keep the server from ending', async () => {
    const gone = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: () => new Response() });
    const url = `http://127.0.0.1:${gone.port}/v1/traces`;
    await gone.stop(true);
    const tracer = new RequestTracer(url, 'demo');
    tracer.onFinished(finished(null));
    await tracer.close();
  });
});
