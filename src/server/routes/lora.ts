import * as v from 'valibot';
import { ValidationError } from '../../errors/validation-error.ts';
import { AdapterNotFoundError } from '../../lora/served-adapters.ts';
import { ApiError } from '../errors.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import { boolean, string } from '../protocol/fields.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import { parseBody } from '../protocol/parse-body.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

const loadSchema = v.object({ lora_name: string, lora_path: string, load_inplace: v.optional(boolean, false) });
const unloadSchema = v.object({ lora_name: string });

/** POST /v1/load_lora_adapter and /v1/unload_lora_adapter, with `--allow-runtime-lora-updating` only. */
export function registerLora(app: ServerApp, context: ServerContext): void {
  const { adapters, config } = context;
  const limits = config.frontend;

  const loading = {
    summary: 'Load an adapter',
    body: { LoadLoRAAdapterRequest: loadSchema },
    answers: ['text/plain'],
  } as const;
  app.post('/v1/load_lora_adapter', describeRoute(loading), async (c) => {
    const request = parseBody(loadSchema, await readJsonBody(c.req.raw, limits));
    const { lora_name: name, lora_path: path, load_inplace: loadInplace } = request;
    await refusing(adapters.load({ name, path, loadInplace }));
    return c.text(`Success: LoRA adapter '${name}' added successfully.`);
  });

  const unloading = {
    summary: 'Unload an adapter',
    body: { UnloadLoRAAdapterRequest: unloadSchema },
    answers: ['text/plain'],
  } as const;
  app.post('/v1/unload_lora_adapter', describeRoute(unloading), async (c) => {
    const { lora_name: name } = parseBody(unloadSchema, await readJsonBody(c.req.raw, limits));
    await refusing(adapters.unload(name));
    return c.text(`Success: LoRA adapter '${name}' removed successfully.`);
  });
}

/** vLLM's types of error. */
async function refusing<Result>(change: Promise<Result>): Promise<Result> {
  try {
    return await change;
  } catch (error) {
    if (error instanceof AdapterNotFoundError) throw new ApiError(404, 'NotFoundError', error.message, error.param);
    if (error instanceof ValidationError) throw new ApiError(400, 'InvalidUserInput', error.message, error.param);
    throw error;
  }
}
