import { join } from 'node:path';
import { ValidationError } from '../../errors/validation-error.ts';
import { decodeInSlices } from '../../tokenizer/decode-in-slices.ts';
import type { Tokenizer } from '../../tokenizer/tokenizer.ts';
import { renderChatPrompt } from '../generation/prompt.ts';
import { describeRoute } from '../openapi/describe-route.ts';
import { isObject } from '../protocol/fields.ts';
import { readJsonBody } from '../protocol/json-body.ts';
import {
  detokenizeSchema,
  parseDetokenize,
  parseTokenize,
  tokenizeChatSchema,
  tokenizeCompletionSchema,
} from '../protocol/tokenize.ts';
import { resolveModel } from '../served-models.ts';
import type { ServerApp, ServerContext } from '../server-context.ts';

/** POST /tokenize and /detokenize; GET /tokenizer_info with `--enable-tokenizer-info-endpoint`. */
export function registerTokenize(app: ServerApp, context: ServerContext): void {
  const { engine, config } = context;
  const bodyLimits = config.frontend;

  const tokenizing = {
    summary: 'Text or a conversation to token ids',
    body: { TokenizeCompletionRequest: tokenizeCompletionSchema, TokenizeChatRequest: tokenizeChatSchema },
  };
  app.post('/tokenize', describeRoute(tokenizing), async (c) => {
    const request = parseTokenize(await readJsonBody(c.req.raw, bodyLimits));
    resolveModel(context, request.model);
    const tokenizer = requireTokenizer(context);
    const text = 'messages' in request ? renderChatPrompt(engine, request) : request.prompt;
    const tokens = [...(await engine.encode(text, { addSpecialTokens: request.add_special_tokens }))];
    const strings = request.return_token_strs ? { token_strs: tokens.map((id) => tokenizer.idToToken(id)) } : {};
    return c.json({ count: tokens.length, max_model_len: config.model.maxModelLen, tokens, ...strings });
  });

  const detokenizing = { summary: 'Token ids to text', body: { DetokenizeRequest: detokenizeSchema } };
  app.post('/detokenize', describeRoute(detokenizing), async (c) => {
    const { model, tokens } = parseDetokenize(await readJsonBody(c.req.raw, bodyLimits));
    resolveModel(context, model);
    const tokenizer = requireTokenizer(context);
    const unknown = tokens.find((id) => id < 0 || id >= tokenizer.vocabSize);
    if (unknown !== undefined) throw new ValidationError(`Token id ${unknown} is out of vocabulary`, 'tokens');
    return c.json({ prompt: await decodeInSlices(tokenizer, tokens) });
  });

  if (config.frontend.enableTokenizerInfoEndpoint) {
    app.get('/tokenizer_info', describeRoute({ summary: "The tokenizer's configuration" }), async (c) =>
      c.json(await tokenizerInfo(context)),
    );
  }
}

/** @throws ValidationError with `--skip-tokenizer-init` */
function requireTokenizer({ engine }: ServerContext): Tokenizer {
  if (engine.tokenizer === null)
    throw new ValidationError('This server runs without a tokenizer (--skip-tokenizer-init).');
  return engine.tokenizer;
}

/** tokenizer_config.json without the paths of its author's machine, and the chat template in use. */
async function tokenizerInfo(context: ServerContext): Promise<Record<string, unknown>> {
  requireTokenizer(context);
  const { model, frontend } = context.config;
  const file = Bun.file(join(model.tokenizerFolder ?? model.folder, 'tokenizer_config.json'));
  const content: unknown = (await file.exists()) ? await file.json() : {};
  const { vocab_file: _vocab, merges_file: _merges, ...info } = isObject(content) ? content : {};
  return frontend.chatTemplate === null ? info : { ...info, chat_template: frontend.chatTemplate };
}
