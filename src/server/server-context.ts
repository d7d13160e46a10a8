import type { Hono } from 'hono';
import type { BaoConfig } from '../config/bao-config.ts';
import type { EngineClient } from '../engine/engine-client.ts';
import type { AdapterTable } from '../lora/adapter-table.ts';
import type { ServedAdapters } from '../lora/served-adapters.ts';
import type { HttpObservation } from '../metrics/http-metrics.ts';
import type { ToolParserObservation } from '../metrics/parser-metrics.ts';
import type { OutputFormats } from '../parsers/resolve-parsers.ts';
import type { StructuredOutputs } from '../structured-output/structured-outputs.ts';
import type { ApiError } from './errors.ts';
import type { SharedLoad } from './shared-load.ts';

/** What the server tells about itself. */
export interface ServerInfo {
  version: string;
}

/** Where /metrics comes from and HTTP requests are counted. */
export interface ServerMetrics {
  contentType: string;
  /** The whole exposition, rendered when a scraper asks. */
  render(): Promise<string>;
  /** Called once per answered request. */
  observeHttp?(observation: HttpObservation): void;
  /** Called for each answer that was searched for tool calls, in a stream for each piece of it. */
  observeToolParser?(observation: ToolParserObservation): void;
}

export interface AppOptions {
  /** By default this package's. */
  serverInfo?: ServerInfo;
  metrics?: ServerMetrics;
  /** Where requests in progress are counted; by default this app's alone. */
  load?: SharedLoad;
  /** The adapters that are served; by default those of the configuration, known to this app alone. */
  adapters?: AdapterTable;
  /** Adds routes of plugins; they go through the same middleware (keys, CORS, logs) as the server's own. */
  routes?(app: Hono): void;
}

/** What Hono hands to handlers: the listening server (second argument of `app.fetch`), the request's id among the variables. */
export interface ServerEnv {
  Bindings: { server?: Pick<Bun.Server<undefined>, 'requestIP' | 'pendingRequests'> } | undefined;
  Variables: {
    requestId: string;
    /** How an endpoint's clients expect errors; by default OpenAI's way. */
    errorResponse?: (error: ApiError) => Response;
  };
}

export type ServerApp = Hono<ServerEnv>;

/** What every handler needs; one per app. */
export interface ServerContext {
  readonly engine: EngineClient;
  readonly config: BaoConfig;
  readonly serverInfo: ServerInfo;
  readonly formats: OutputFormats;
  readonly metrics: ServerMetrics | null;
  /** null with `--fingerprint-mode none`. */
  readonly systemFingerprint: string | null;
  /** Requests to generate that are in progress, counted with `--enable-server-load-tracking`. */
  readonly load: SharedLoad;
  readonly structuredOutputs: StructuredOutputs;
  readonly adapters: ServedAdapters;
}
