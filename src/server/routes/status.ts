import type { EngineClient } from '../../engine/engine-client.ts';
import { ApiError, errorResponse } from '../errors.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import type { ServerApp, ServerContext, ServerMetrics } from '../server-context.ts';

/** /health, /ping, /version, /load and /metrics. */
export function registerStatus(app: ServerApp, context: ServerContext, metrics: ServerMetrics | undefined): void {
  const healthy = { summary: 'Whether requests are taken', answers: ['nothing'] } as const;
  app.get('/health', describeRoute(healthy), () => health(context.engine));
  app.on(['GET', 'POST'], '/ping', describeRoute(healthy), () => health(context.engine));
  app.get('/version', describeRoute({ summary: "The server's version" }), (c) =>
    c.json({ version: context.serverInfo.version }),
  );
  app.get('/load', describeRoute({ summary: 'Requests in progress' }), (c) =>
    c.json({ server_load: context.load.active }),
  );
  if (metrics === undefined) return;
  app.get('/metrics', describeRoute({ summary: 'Metrics for Prometheus', answers: ['text/plain'] }), async () => {
    const text = await metrics.render();
    return new Response(text, { headers: { 'Content-Type': metrics.contentType } });
  });
}

/** 200 without a body, or 503 that says what is wrong. */
function health(engine: EngineClient): Response {
  const status = engine.health();
  if (status.healthy) return new Response(null, { status: 200 });
  return errorResponse(new ApiError(503, 'ServiceUnavailableError', status.reason));
}
