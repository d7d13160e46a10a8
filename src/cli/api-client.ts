import { ConfigError, UsageError } from '../config/config-error.ts';
import type { FlagTable } from '../config/flags/flag.ts';
import type { FlagValues } from '../config/flags/index.ts';
import { engineArgsOf } from './command-line.ts';
import { errorMessage, readEvents } from './sse-reader.ts';

/** Flags by which a command finds its model. */
export const CLIENT_FLAGS = {
  url: {
    type: 'string',
    default: null,
    metavar: 'URL',
    help: 'A running server (http://localhost:8000/v1); by default the command runs the model itself.',
  },
  'model-name': {
    type: 'string',
    default: null,
    metavar: 'NAME',
    help: 'Name of the model at --url; by default the first that the server has.',
  },
  'api-key': {
    type: 'string',
    default: null,
    env: 'OPENAI_API_KEY',
    secret: true,
    metavar: 'KEY',
    help: 'Key for the server at --url.',
  },
} as const satisfies FlagTable;

/** An OpenAI API, over HTTP or in this process. */
export interface ApiClient {
  /** Named in every request. */
  readonly model: string;
  /** Sends a POST with JSON to a path such as `/chat/completions`. */
  post(path: string, body: Readonly<Record<string, unknown>>): Promise<Response>;
  close(): Promise<void>;
}

export interface ApiSource {
  url: string | null;
  modelName: string | null;
  apiKey: string | null;
  engine: Partial<FlagValues>;
  /** The model as a word of the command line. */
  model: string | undefined;
}

/** @throws UsageError, and ConfigError for a server that does not answer; what starting the engine throws */
export async function openApi({ url, modelName, apiKey, engine, model }: ApiSource): Promise<ApiClient> {
  if (url === null) return openInProcess(engine, model);
  if (model !== undefined) throw new UsageError(`"${model}" is a model to run here, and --url names a server.`);
  return openServer(url, apiKey || null, modelName);
}

async function openServer(url: string, apiKey: string | null, modelName: string | null): Promise<ApiClient> {
  if (!URL.canParse(url)) throw new UsageError(`--url ${url} is no URL.`);
  const { origin, pathname } = new URL(url);
  const base = origin + (pathname === '/' ? '/v1' : pathname.replace(/\/+$/, ''));
  const headers: Record<string, string> = apiKey === null ? {} : { Authorization: `Bearer ${apiKey}` };
  const send = async (path: string, init: RequestInit) => {
    try {
      return await fetch(base + path, init);
    } catch (error) {
      throw new ConfigError(`${base} can't be reached: ${(error as Error).message}`);
    }
  };
  const model = modelName ?? (await firstModel(await send('/models', { headers })));
  return {
    model,
    post: (path, body) =>
      send(path, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', ...headers },
        body: JSON.stringify(body),
      }),
    close: async () => {},
  };
}

async function firstModel(response: Response): Promise<string> {
  await throwRefusal(response);
  const { data } = (await response.json()) as { data?: { id: string }[] };
  const id = data?.[0]?.id;
  if (id === undefined) throw new ConfigError('The server at --url has no model.');
  return id;
}

/** The server's app without a socket: what it answers is what `bao serve` would answer. */
async function openInProcess(engine: Partial<FlagValues>, model: string | undefined): Promise<ApiClient> {
  const [{ OfflineEngine }, { createApp }] = await Promise.all([
    import('../entrypoints/offline-engine.ts'),
    import('../server/app.ts'),
  ]);
  // Nobody else can reach it, and its log lines would mix with the answers.
  const args = engineArgsOf({ ...engine, apiKey: [], rootPath: null, disableUvicornAccessLog: true }, model);
  const offline = await OfflineEngine.start(args);
  const app = createApp(offline.client, { adapters: offline.adapters.table });
  return {
    model: offline.config.model.servedModelName[0]!,
    post: async (path, body) =>
      app.fetch(
        new Request(`http://localhost/v1${path}`, {
          method: 'POST',
          headers: { 'Content-Type': 'application/json' },
          body: JSON.stringify(body),
        }),
      ),
    close: () => offline.close(),
  };
}

/** Posts a request with `stream` and gives the first choice of each event. Throws ConfigError with the server's words for a refusal. */
export async function* streamChoices<Choice>(
  api: ApiClient,
  path: string,
  body: Readonly<Record<string, unknown>>,
): AsyncGenerator<Choice, void, void> {
  const response = await api.post(path, { model: api.model, stream: true, ...body });
  await throwRefusal(response);
  for await (const event of readEvents(response.body!)) {
    const [choice] = (event as { choices?: Choice[] }).choices ?? [];
    if (choice !== undefined) yield choice;
  }
}

async function throwRefusal(response: Response): Promise<void> {
  if (response.ok) return;
  const text = await response.text();
  let message: string | null = null;
  try {
    message = errorMessage(JSON.parse(text));
  } catch {
    // A proxy's page: its status says enough.
  }
  throw new ConfigError(message ?? `The server has answered with status ${response.status}.`);
}
