import { DOCS_PAGE } from '../openapi/docs-page.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** The page loads nothing but the description, and runs nothing but its own script. */
const PAGE_POLICY = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/** GET /openapi.json and /docs. The document is made when somebody asks: then all routes are there. */
export function registerOpenApi(app: ServerApp, { config, serverInfo }: ServerContext): void {
  const { rootPath, apiKey } = config.frontend;
  const ownPaths = new Set(['/openapi.json', '/docs']);
  let document: Record<string, unknown> | null = null;
  app.get('/openapi.json', async (c) => {
    // What makes it is loaded only where somebody asks.
    const { openApiDocument } = await import('../openapi/openapi-document.ts');
    document ??= openApiDocument(
      app.routes.filter(({ path }) => !ownPaths.has(path)),
      { version: serverInfo.version, rootPath, hasKeys: apiKey.length > 0 },
    );
    return c.json(document);
  });
  app.get(
    '/docs',
    () =>
      new Response(DOCS_PAGE, {
        headers: { 'Content-Type': 'text/html; charset=utf-8', 'Content-Security-Policy': PAGE_POLICY },
      }),
  );
}
