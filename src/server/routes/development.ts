import { cpus, release, totalmem } from 'node:os';
import * as v from 'valibot';
import { maskedConfig } from '../../config/masked-config.ts';
import { settingVariables } from '../../config/setting-variables.ts';
import { SLEEP_LEVELS, SLEEP_MODES } from '../../engine/messages.ts';
import { logger } from '../../logging/logger.ts';
import { MEMORY_TAGS } from '../../worker/memory-tags.ts';
import { ApiError } from '../errors.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import { boolean, integerBetween, list, literal } from '../protocol/fields.ts';
import { parseQuery } from '../protocol/parse-body.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

const log = logger('server');

/** Only in development mode: whoever reaches these routes can stop the server's work. */
export const DEVELOPMENT_ROUTES = [
  '/reset_prefix_cache',
  '/sleep',
  '/wake_up',
  '/is_sleeping',
  '/server_info',
] as const;

const resetQuery = v.object({ reset_running_requests: v.optional(boolean, false) });
const sleepQuery = v.object({
  level: v.optional(integerBetween(0, SLEEP_LEVELS.length - 1), 1),
  mode: v.optional(literal(...SLEEP_MODES), 'abort'),
});
const wakeQuery = v.object({ tags: v.optional(list(literal(...MEMORY_TAGS, 'scheduling'))) });
const infoQuery = v.object({ config_format: v.optional(literal('text', 'json'), 'text') });

const RESET = { summary: 'Forget cached prefixes', query: resetQuery, answers: ['nothing'] } as const;
const SLEEP = { summary: 'Put the engine to sleep', query: sleepQuery, answers: ['nothing'] } as const;
const WAKE = { summary: 'Wake the engine', query: wakeQuery, answers: ['nothing'] } as const;

/** POST /reset_prefix_cache, /sleep and /wake_up, GET /is_sleeping and /server_info, with `--server-dev-mode`. */
export function registerDevelopment(app: ServerApp, context: ServerContext): void {
  const { engine, config, serverInfo } = context;

  app.post('/reset_prefix_cache', describeRoute(RESET), async (c) => {
    const query = parseQuery(resetQuery, c.req.query());
    log.info('Resetting the prefix cache');
    if (await engine.resetPrefixCache(query.reset_running_requests)) return c.body(null, 200);
    throw new ApiError(
      409,
      'ConflictError',
      'The prefix cache is in use by running requests: try again when they have ended, or with reset_running_requests=true.',
    );
  });

  app.post('/sleep', describeRoute(SLEEP), async (c) => {
    const { level, mode } = parseQuery(sleepQuery, c.req.query());
    log.info(`Going to sleep at level ${level}, mode ${mode}`);
    await engine.sleep(SLEEP_LEVELS[level]!, mode);
    return c.body(null, 200);
  });

  app.post('/wake_up', describeRoute(WAKE), async (c) => {
    const { tags } = parseQuery(wakeQuery, { tags: c.req.queries('tags') });
    log.info(`Waking up ${tags?.join(', ') ?? 'everything'}`);
    await engine.wakeUp(tags);
    return c.body(null, 200);
  });

  app.get('/is_sleeping', describeRoute({ summary: 'Whether the engine sleeps' }), async (c) =>
    c.json({ is_sleeping: await engine.isSleeping() }),
  );

  app.get('/server_info', describeRoute({ summary: 'Configuration and environment', query: infoQuery }), (c) => {
    const { config_format: format } = parseQuery(infoQuery, c.req.query());
    const shown = maskedConfig(config);
    return c.json({
      vllm_config: format === 'json' ? shown : JSON.stringify(shown, null, 2),
      vllm_env: Object.fromEntries(settingVariables(process.env)),
      system_env: {
        bao: serverInfo.version,
        bun: Bun.version,
        system: `${process.platform} ${release()} ${process.arch}`,
        cpu: cpus()[0]?.model.trim() ?? null,
        hardware_threads: cpus().length,
        memory_bytes: totalmem(),
      },
    });
  });
}
