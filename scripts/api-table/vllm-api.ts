/** vLLM's routes and request fields, from the list of facts in test/reference/requests.md. */
export interface VllmApi {
  routes: VllmRoute[];
  /** By name of the schema. */
  schemas: Map<string, string[]>;
}

export interface VllmRoute {
  method: string;
  path: string;
  /** Names of the schemas that the body may have. */
  bodies: string[];
}

export function parseVllmApi(text: string): VllmApi {
  const [head = '', ...sections] = text.split(/^## /m);
  const routes = [...head.matchAll(/^- (GET|POST|PUT|DELETE) ([^\s:]+)(?:: (.*))?$/gm)].map(
    ([, method, path, bodies]) => ({
      method: method!,
      path: path!,
      bodies: bodies === undefined ? [] : bodies.split(' | '),
    }),
  );
  const schemas = new Map(
    sections.map((section) => {
      const [name = '', ...lines] = section.split('\n');
      const fields = lines.map((line) => /^(\w+)\*? \| /.exec(line)?.[1]).filter((field) => field !== undefined);
      return [name.trim(), fields];
    }),
  );
  return { routes, schemas };
}
