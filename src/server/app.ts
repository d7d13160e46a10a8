import { Hono } from 'hono';
import { getPath } from 'hono/utils/url';
import type { EngineClient } from '../engine/engine-client.ts';
import { logger } from '../logging/logger.ts';
import { ServedAdapters } from '../lora/served-adapters.ts';
import { resolveParsers } from '../parsers/resolve-parsers.ts';
import { canScore, type PoolingConfig } from '../pooling/pooling-config.ts';
import { StructuredOutputs } from '../structured-output/structured-outputs.ts';
import { VERSION } from '../version.ts';
import { systemFingerprint } from './answers/fingerprint.ts';
import { CLIENT_CLOSED_REQUEST, detailResponse, errorResponse, isUnexpected, toApiError } from './errors.ts';
import { requireApiKey } from './middleware/auth.ts';
import { cors } from './middleware/cors.ts';
import { limitConcurrency } from './middleware/limit-concurrency.ts';
import { observe } from './middleware/observe.ts';
import { requestId } from './middleware/request-id.ts';
import { registerChatCompletions } from './routes/chat-completions.ts';
import { registerClassify } from './routes/classify.ts';
import { registerCohereEmbed } from './routes/cohere-embed.ts';
import { registerCompletions } from './routes/completions.ts';
import { DEVELOPMENT_ROUTES, registerDevelopment } from './routes/development.ts';
import { registerEmbeddings } from './routes/embeddings.ts';
import { registerGenerativeScoring } from './routes/generative-scoring.ts';
import { registerLora } from './routes/lora.ts';
import { registerMessages, useMessageErrors } from './routes/messages.ts';
import { registerModels } from './routes/models.ts';
import { registerOpenApi } from './routes/openapi.ts';
import { registerPooling } from './routes/pooling.ts';
import { registerResponses } from './routes/responses.ts';
import { registerScore } from './routes/score.ts';
import { registerStatus } from './routes/status.ts';
import { registerTokenize } from './routes/tokenize.ts';
import type { AppOptions, ServerApp, ServerContext, ServerEnv } from './server-context.ts';
import { SharedLoad } from './shared-load.ts';

const log = logger('server');

/**
 * The HTTP API over an engine: `app.fetch(request, { server })` answers a request; the Bun server, where given, tells the access log who asks.
 */
export function createApp(engine: EngineClient, options: AppOptions = {}): ServerApp {
  const { config } = engine;
  const { frontend } = config;
  const serverInfo = options.serverInfo ?? { version: VERSION };
  const context: ServerContext = {
    engine,
    config,
    serverInfo,
    formats: resolveParsers(frontend),
    metrics: options.metrics ?? null,
    systemFingerprint: systemFingerprint(config, serverInfo.version),
    load: options.load ?? new SharedLoad(),
    structuredOutputs: new StructuredOutputs(config, engine.tokenizer),
    adapters: new ServedAdapters(engine, config, options.adapters),
  };
  const app: ServerApp = new Hono<ServerEnv>({ getPath: pathUnder(frontend.rootPath) });
  const silent = new Set(frontend.disableAccessLogForEndpoints);
  app.use(
    requestId(frontend.enableRequestIdHeaders),
    observe({
      logs: (path) => !frontend.disableUvicornAccessLog && !silent.has(path),
      observeHttp: options.metrics?.observeHttp?.bind(options.metrics),
    }),
  );
  useMessageErrors(app);
  // Before what refuses: a browser can read a refusal only with these headers.
  if (frontend.allowedOrigins.length > 0) app.use(cors(frontend));
  if (frontend.limitConcurrency !== null) app.use(limitConcurrency(frontend.limitConcurrency));
  if (frontend.apiKey.length > 0) app.use(requireApiKey(frontend.apiKey, DEVELOPMENT_ROUTES));

  registerStatus(app, context, options.metrics);
  registerModels(app, context);
  // A path that the model can't serve is not there, as in vLLM.
  if (config.model.pooling === null) registerGeneration(app, context);
  else registerPoolingTasks(app, context, config.model.pooling);
  registerTokenize(app, context);
  if (config.lora.allowRuntimeLoraUpdating) registerLora(app, context);
  if (frontend.serverDevMode) registerDevelopment(app, context);
  if (!frontend.disableFastapiDocs) registerOpenApi(app, context);
  // Plugins see a plain app: what this one keeps per request is none of their business.
  options.routes?.(app as unknown as Hono);
  refuseOtherMethods(app);

  app.notFound(() => detailResponse(404, 'Not Found'));
  app.onError((error, c) => {
    const id = c.get('requestId');
    const apiError = toApiError(error, id);
    if (isUnexpected(error))
      log.error(`${c.req.method} ${new URL(c.req.url).pathname} has failed (request id ${id})`, { error: error.stack });
    // Nobody reads this answer, and a Response can't have nginx's status in every runtime.
    if (apiError.status === CLIENT_CLOSED_REQUEST) return new Response(null, { status: CLIENT_CLOSED_REQUEST });
    return (c.get('errorResponse') ?? errorResponse)(apiError);
  });
  return app;
}

function registerGeneration(app: ServerApp, context: ServerContext): void {
  registerChatCompletions(app, context);
  registerCompletions(app, context);
  registerMessages(app, context);
  registerResponses(app, context);
  registerGenerativeScoring(app, context);
}

function registerPoolingTasks(app: ServerApp, context: ServerContext, pooling: PoolingConfig): void {
  registerPooling(app, context);
  if (pooling.convert === 'embed') {
    registerEmbeddings(app, context);
    registerCohereEmbed(app, context);
  } else registerClassify(app, context);
  if (canScore(pooling)) registerScore(app, context);
}

/** Paths count with and without `--root-path` in front: some proxies strip it, some don't. */
function pathUnder(rootPath: string | null): (request: Request) => string {
  const root = (rootPath ?? '').replace(/\/+$/, '');
  if (root === '') return (request) => getPath(request);
  const prefix = root.startsWith('/') ? root : `/${root}`;
  return (request) => {
    const path = getPath(request);
    return path === prefix || path.startsWith(`${prefix}/`) ? path.slice(prefix.length) || '/' : path;
  };
}

/** 405 with Allow on every path that has routes, for the methods that none of them takes. */
function refuseOtherMethods(app: ServerApp): void {
  const methods = new Map<string, Set<string>>();
  for (const { path, method } of app.routes) {
    if (method === 'ALL') continue;
    methods.set(path, (methods.get(path) ?? new Set()).add(method));
  }
  for (const [path, allowed] of methods) {
    app.all(path, () => detailResponse(405, 'Method Not Allowed', { Allow: [...allowed].join(', ') }));
  }
}
