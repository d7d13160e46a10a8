import { ValidationError } from '../../errors/validation-error.ts';
import { typedEmbeddings } from '../answers/cohere-embeddings.ts';
import { numPromptTokens } from '../answers/pooling-answer.ts';
import { renderChatPrompt } from '../generation/prompt.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import { collectPooled } from '../pooling/collect-pooled.ts';
import {
  type PoolingPrompt,
  poolingConfigOf,
  poolingHead,
  poolingParams,
  poolingRequests,
  preparePrompt,
  textLimits,
} from '../pooling/pooling-requests.ts';
import { type CohereEmbedRequest, cohereEmbedSchema, parseCohereEmbed } from '../protocol/cohere-embed.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** POST /v2/embed: Cohere's API for embeddings. */
export function registerCohereEmbed(app: ServerApp, context: ServerContext): void {
  const description = { summary: 'Embed texts (Cohere)', body: { CohereEmbedRequest: cohereEmbedSchema } };
  app.post('/v2/embed', describeRoute(description), async (c) => {
    const raw = c.req.raw;
    const request = parseCohereEmbed(await readJsonBody(raw, context.config.frontend));
    const origin = { model: request.model, priority: request.priority, ...truncationOf(request) };
    const head = poolingHead(context, 'embd', origin, raw.headers, c.get('requestId'));
    const params = poolingParams(context, 'embed', origin, request.output_dimension ?? null);
    const limits = textLimits(context, origin);
    const prompts = await Promise.all(
      promptTexts(context, request).map((text) => preparePrompt(context, ...text, limits)),
    );
    checkLengths(request, prompts);
    const source = { headers: raw.headers, id: head.id };
    const requests = poolingRequests(context, prompts, params, origin, source);
    const outputs = await collectPooled(context, requests, raw.signal);
    const vectors = outputs.map(({ output }) => output.values);
    return c.json({
      id: head.id,
      embeddings: typedEmbeddings(vectors, request.embeddingTypes),
      ...(request.areMessages ? {} : { texts: request.texts }),
      meta: {
        api_version: { version: '2' },
        billed_units: { input_tokens: numPromptTokens(outputs), image_tokens: 0 },
      },
      response_type: 'embeddings_by_type',
    });
  });
}

function truncationOf({ truncate, max_tokens: maxTokens }: CohereEmbedRequest) {
  if (truncate === 'NONE') return {};
  const side = truncate === 'START' ? { truncation_side: 'left' as const } : {};
  return { truncate_prompt_tokens: maxTokens ?? -1, ...side };
}

/**
 * Each text with what the model wants to be told it is for, and whether special tokens are to be added: as a system message where there is a chat
 * template, else in front of the text.
 *
 * @throws ValidationError for a purpose that the model doesn't know
 */
function promptTexts(context: ServerContext, { texts, areMessages, input_type: inputType }: CohereEmbedRequest) {
  const { engine } = context;
  const prefix = prefixOf(context, inputType ?? null);
  if (!areMessages && (prefix === '' || !engine.hasChatTemplate)) {
    return texts.map((text): [string, boolean] => [prefix + text, true]);
  }
  const system = prefix === '' ? [] : [{ role: 'system' as const, content: prefix }];
  return texts.map((text): [string, boolean] => {
    const messages = [...system, { role: 'user' as const, content: text }];
    const fields = { messages, add_generation_prompt: false, continue_final_message: false, add_special_tokens: false };
    return [renderChatPrompt(engine, fields), false];
  });
}

function prefixOf(context: ServerContext, inputType: string | null): string {
  if (inputType === null) return '';
  const { prompts } = poolingConfigOf(context);
  if (prompts === null) {
    throw new ValidationError(
      `Unsupported input_type '${inputType}'. This model does not define any input_type task instructions.`,
      'input_type',
    );
  }
  if (Object.hasOwn(prompts, inputType)) return prompts[inputType]!;
  const known = Object.keys(prompts).sort().join(', ');
  throw new ValidationError(`Unsupported input_type '${inputType}'. Supported values: ${known}`, 'input_type');
}

/** Without truncation `max_tokens` is a limit. */
function checkLengths({ truncate, max_tokens: most }: CohereEmbedRequest, prompts: readonly PoolingPrompt[]): void {
  if (truncate !== 'NONE' || most == null) return;
  const long = prompts.find(({ ids }) => ids.length > most);
  if (long === undefined) return;
  throw new ValidationError(
    `Input of ${long.ids.length} tokens exceeds max_tokens=${most} with truncate=NONE. Set truncate to END or START to allow truncation.`,
    'max_tokens',
  );
}
