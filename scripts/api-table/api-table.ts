/** The table of docs/api.md: what becomes of each route and field of vLLM's, found out by asking a running server. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { EngineArgs } from '../../src/config/engine-args.ts';
import { OfflineEngine } from '../../src/entrypoints/offline-engine.ts';
import { createApp } from '../../src/server/app.ts';
import type { ServerApp } from '../../src/server/server-context.ts';
import { FIELD_CASES } from '../../test/api-fields/registry.ts';
import { CLASSIFICATION_ROUTES, EMBEDDING_ROUTES, ROUTE_CASES } from '../../test/api-fields/route-cases.ts';
import { probe } from './probes.ts';
import { parseVllmApi, type VllmRoute } from './vllm-api.ts';

const ROOT = resolve(import.meta.dir, '../..');
export const API_PAGE = resolve(ROOT, 'docs/api.md');
const BEGIN = '<!-- Made by `bun run docs` from a running server. -->';
const END = '<!-- End of what `bun run docs` makes. -->';

/** Why routes of vLLM's are not there. */
const ABSENT_ROUTES: Readonly<Record<string, string>> = {
  '/kv_event_sources': 'no events of the KV cache are published',
  '/v1/systemone': 'structured decisions of a model family that is not served',
  '/invocations': "SageMaker's name for the other routes",
  '/scale_elastic_ep': 'engine cores are as many as at the start',
  '/is_scaling_elastic_ep': 'engine cores are as many as at the start',
};

/** Models that are pooled, for the routes which only they have. */
const POOLED = [
  { model: 'demo', runner: 'pooling' },
  { model: resolve(ROOT, 'test/goldens/llama_classifier'), skipTokenizerInit: true },
] as const;

/** Fields within objects that are no schema of the server's own, and mean nothing to it. */
const NOT_APPLICABLE: Readonly<Record<string, string>> = {
  'StructuredOutputsParams._backend': 'internal to vLLM',
  'StructuredOutputsParams._backend_was_auto': 'internal to vLLM',
  'ChatCompletionToolsParam.defer_loading': 'all tools are in the prompt',
};

const ALL_ROUTES = { ...ROUTE_CASES, ...EMBEDDING_ROUTES, ...CLASSIFICATION_ROUTES };

export type Verdict = 'works' | 'refused' | 'not applicable';

export interface Row {
  name: string;
  verdict: Verdict;
  /** What the test of what works shows, else the reason or the server's own words. */
  note: string;
}

interface Answer {
  status: number;
  message: string;
  param: string | null;
}

type OpenApi = {
  paths: Record<string, Record<string, unknown>>;
  components: {
    schemas: Record<string, { properties?: Record<string, { 'x-effect'?: string; description?: string }> }>;
  };
};

/** What works is what test/api-fields has a case of; of all else the server is asked. Throws Error for what is neither shown to work, nor refused by name, nor known to mean nothing here. */
export async function apiTable(): Promise<{ title: string; rows: Row[] }[]> {
  const api = parseVllmApi(readFileSync(resolve(ROOT, 'test/reference/requests.md'), 'utf8'));
  const engine = await OfflineEngine.start(
    new EngineArgs({
      model: 'demo',
      logLevel: 'error',
      disableUvicornAccessLog: true,
      enableAutoToolChoice: true,
      toolCallParser: 'hermes',
      reasoningParser: 'qwen3',
      trustRequestChatTemplate: true,
      serverDevMode: true,
      enableTokenizerInfoEndpoint: true,
      enableLora: true,
      allowRuntimeLoraUpdating: true,
      plugin: [resolve(ROOT, 'test/fixtures/no-repeat-ngram-plugin.ts')],
    }),
  );
  try {
    const metrics = { contentType: 'text/plain', render: async () => '' };
    const app = createApp(engine.client, { metrics });
    const openApi = await openApiOf(app);
    const ask = async (schema: string, field: string): Promise<Answer> => {
      const { path, body } = probe(schema, field);
      const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
      return readAnswer(await app.fetch(new Request(`http://localhost${path}`, init)));
    };
    const maker = new TableMaker(openApi, ask);
    const paths = { ...(await pooledPaths()), ...openApi.paths };
    const sections = [{ title: 'Routes', rows: maker.routeRows(api.routes, paths) }];
    for (const [schema, fields] of api.schemas) {
      const rows: Row[] = [];
      for (const field of fields) rows.push(await maker.fieldRow(schema, field));
      sections.push({ title: schema, rows });
    }
    if (maker.problems.length > 0)
      throw new Error(`The table of docs/api.md can't be made:\n${maker.problems.join('\n')}`);
    return sections;
  } finally {
    await engine.close();
  }
}

async function openApiOf(app: ServerApp): Promise<OpenApi> {
  return (await (await app.fetch(new Request('http://localhost/openapi.json'))).json()) as OpenApi;
}

async function pooledPaths(): Promise<OpenApi['paths']> {
  const paths: OpenApi['paths'] = {};
  for (const options of POOLED) {
    const engine = await OfflineEngine.start(new EngineArgs({ logLevel: 'error', ...options }));
    try {
      Object.assign(paths, (await openApiOf(createApp(engine.client))).paths);
    } finally {
      await engine.close();
    }
  }
  return paths;
}

async function readAnswer(response: Response): Promise<Answer> {
  const text = await response.text();
  if (response.status < 400) return { status: response.status, message: '', param: null };
  const { error } = JSON.parse(text) as { error: { message: string; param?: string | null } };
  return { status: response.status, message: error.message, param: error.param ?? null };
}

/** Makes the rows, and collects what is wrong with the server or the tests. */
class TableMaker {
  readonly problems: string[] = [];

  constructor(
    private readonly openApi: OpenApi,
    private readonly ask: (schema: string, field: string) => Promise<Answer>,
  ) {}

  routeRows(routes: readonly VllmRoute[], paths: OpenApi['paths']): Row[] {
    const served = new Map<string, string>(
      Object.entries(paths).flatMap(([path, operations]) =>
        Object.keys(operations).map((method) => [`${method.toUpperCase()} ${anonymous(path)}`, path] as const),
      ),
    );
    const names = new Map<string, string>(
      routes.map(({ method, path }) => [`${method} ${anonymous(path)}`, `${method} ${path}`]),
    );
    for (const [key, path] of served) if (!names.has(key)) names.set(key, `${key.split(' ')[0]} ${path}`);
    return [...names].map(([key, name]) => {
      if (served.has(key)) return { name, verdict: 'works', note: this.shown(name) };
      const reason = ABSENT_ROUTES[name.split(' ')[1]!];
      return {
        name,
        verdict: 'not applicable',
        note: reason ?? this.wrong(`${name} is not served, for no known reason`),
      };
    });
  }

  async fieldRow(schema: string, field: string): Promise<Row> {
    const shown = FIELD_CASES[schema]?.cases[field];
    if (shown !== undefined) return { name: field, verdict: 'works', note: shown.shows };
    const name = `${schema}.${field}`;
    const answer = await this.ask(schema, field);
    if (answer.status >= 400) {
      if (answer.status >= 500) this.wrong(`${name}: status ${answer.status}, ${answer.message}`);
      if (/^\d+ validation error/.test(answer.message)) this.wrong(`${name}: the probe is wrong: ${answer.message}`);
      if (!names(answer, field)) this.wrong(`${name} is refused, but not by its name: ${answer.message}`);
      return { name: field, verdict: 'refused', note: answer.message };
    }
    const property = this.openApi.components.schemas[schema]?.properties?.[field];
    const reason = NOT_APPLICABLE[name] ?? (property?.['x-effect'] === 'none' ? property.description : undefined);
    const note = reason ?? this.wrong(`${name} is taken, and no case in test/api-fields shows that it is obeyed`);
    return { name: field, verdict: 'not applicable', note };
  }

  private shown(route: string): string {
    return (
      ALL_ROUTES[route]?.shows ?? this.wrong(`${route} is served, and no case in test/api-fields shows what it does`)
    );
  }

  private wrong(problem: string): string {
    this.problems.push(problem);
    return problem;
  }
}

/** Parameters of paths have names of their own in every description. */
function anonymous(path: string): string {
  return path.replace(/\{\w+\}/g, '{}');
}

function names({ param, message }: Answer, field: string): boolean {
  return param?.split(/[.[]/).includes(field) === true || new RegExp(`\\b${field}\\b`).test(message);
}

/** docs/api.md with the table in its place. Throws Error where the page has no place for it. */
export function withTable(page: string, sections: readonly { title: string; rows: readonly Row[] }[]): string {
  const [begin, end] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (begin < 0 || end < begin) throw new Error(`docs/api.md has no lines "${BEGIN}" and "${END}"`);
  const text = sections.map(({ title, rows }) => {
    const lines = rows.map(({ name, verdict, note }) => `| \`${name}\` | ${verdict} | ${cell(note)} |`);
    return `### ${title}\n\n| | | |\n| --- | --- | --- |\n${lines.join('\n')}\n`;
  });
  return `${page.slice(0, begin)}${BEGIN}\n\n${text.join('\n')}\n${page.slice(end)}`;
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ');
}
