import { describeRoute } from '../openapi/describe-route.ts';
import { randomId } from '../request-id.ts';
import { resolveModel } from '../served-models.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** GET /v1/models and /v1/models/{id}. */
export function registerModels(app: ServerApp, context: ServerContext): void {
  const { servedModelName } = context.config.model;
  app.get('/v1/models', describeRoute({ summary: 'The models that are served' }), (c) => {
    const names = [...servedModelName, ...context.adapters.list().map(({ name }) => name)];
    return c.json({ object: 'list', data: names.map((name) => modelCard(context, name)) });
  });
  app.get('/v1/models/:id{.+}', describeRoute({ summary: 'A model that is served' }), (c) => {
    const id = c.req.param('id');
    resolveModel(context, id);
    return c.json(modelCard(context, id));
  });
}

function modelCard({ config, adapters }: ServerContext, id: string): Record<string, unknown> {
  const created = Math.floor(Date.now() / 1000);
  const adapter = adapters.get(id);
  const origin =
    adapter === null
      ? { root: config.model.model, parent: null, max_model_len: config.model.maxModelLen }
      : { root: adapter.root, parent: adapter.parent };
  return {
    id,
    object: 'model',
    created,
    owned_by: 'bao',
    ...origin,
    permission: [
      {
        id: `modelperm-${randomId()}`,
        object: 'model_permission',
        created,
        allow_create_engine: false,
        allow_sampling: true,
        allow_logprobs: true,
        allow_search_indices: false,
        allow_view: true,
        allow_fine_tuning: false,
        organization: '*',
        group: null,
        is_blocking: false,
      },
    ],
  };
}
