import { ValidationError } from '../../errors/validation-error.ts';
import { applyTemplate, numSpecialTokens, type TextTemplate } from '../../tokenizer/text-template.ts';
import { promptFromIds } from '../generation/prompt.ts';
import type { ScoreFields } from '../protocol/score.ts';
import { type PoolingContext, type PoolingPrompt, poolingConfigOf, preparePrompt, textOf } from './pooling-requests.ts';
import { cutText, pairLengths, type TextLimits } from './text-limits.ts';

/** What of a request says how a pair becomes a prompt. */
export type PairOptions = Pick<
  ScoreFields,
  'max_tokens_per_query' | 'max_tokens_per_doc' | 'instruction' | 'chat_template_kwargs'
>;

type PairMaker = (first: string, second: string) => Promise<PoolingPrompt>;

/** Variables of a score template that a request can't set. */
const RESERVED = ['chat_template', 'tools', 'tokenize'];

/**
 * How both texts of a pair become one prompt: by the operator's template (`--chat-template`, with the roles query and document), else as the
 * tokenizer puts two texts together, else, for a model that generates and was made a classifier, one behind the other.
 *
 * @throws ValidationError for what the template's variables can't be, and where the tokenizer does not say how
 */
export function pairMaker(context: PoolingContext, options: PairOptions, limits: TextLimits): PairMaker {
  if (context.config.frontend.chatTemplate !== null) return byTemplate(context, options, limits);
  for (const name of ['instruction', 'chat_template_kwargs'] as const) {
    if (options[name] == null) continue;
    throw new ValidationError(`${name} is for score templates; this server has none (--chat-template).`, name);
  }
  return poolingConfigOf(context).usesSepToken
    ? byTokenizer(context, options, limits)
    : oneBehindTheOther(context, options, limits);
}

function byTemplate(context: PoolingContext, options: PairOptions, limits: TextLimits): PairMaker {
  const { engine } = context;
  const given = options.chat_template_kwargs ?? {};
  const reserved = RESERVED.find((name) => name in given);
  if (reserved !== undefined) {
    throw new ValidationError(`chat_template_kwargs must not have ${reserved}.`, 'chat_template_kwargs');
  }
  const instruction = options.instruction == null ? {} : { instruction: options.instruction };
  const chatTemplateKwargs = {
    ...context.config.frontend.defaultChatTemplateKwargs,
    ...instruction,
    ...given,
  };
  return async (first, second) => {
    const [query, document] = await cutPair(context, first, second, options);
    const text = engine.renderChat({
      messages: [
        { role: 'query', content: query },
        { role: 'document', content: document },
      ],
      addGenerationPrompt: false,
      continueFinalMessage: false,
      chatTemplateKwargs,
    });
    return preparePrompt(context, text, true, limits);
  };
}

function oneBehindTheOther(context: PoolingContext, options: PairOptions, limits: TextLimits): PairMaker {
  return async (first, second) =>
    preparePrompt(context, (await cutPair(context, first, second, options)).join(''), true, limits);
}

async function cutPair({ engine }: PoolingContext, first: string, second: string, options: PairOptions) {
  return Promise.all([
    cutText(engine, first, options.max_tokens_per_query),
    cutText(engine, second, options.max_tokens_per_doc),
  ]);
}

function byTokenizer(context: PoolingContext, options: PairOptions, limits: TextLimits): PairMaker {
  const pieces = context.engine.tokenizer?.textTemplate?.pair ?? null;
  if (pieces === null) {
    throw new ValidationError(
      "The model's tokenizer does not say how two texts become one prompt, so pairs can't be scored.",
    );
  }
  // A query that is scored with many documents is tokenized once.
  const known = new Map<string, Promise<Int32Array>>();
  const encode = (text: string, most: number) => {
    const ids = known.get(text) ?? context.engine.encode(textOf(context, text), { addSpecialTokens: false });
    known.set(text, ids);
    return ids.then((all) => (most === 0 ? all : all.subarray(0, most)));
  };
  return async (first, second) => {
    const ids = await Promise.all([
      encode(first, options.max_tokens_per_query),
      encode(second, options.max_tokens_per_doc),
    ]);
    return pairOf(context, pieces, ids, limits);
  };
}

function pairOf(
  { config }: PoolingContext,
  pieces: TextTemplate['pair'],
  [first, second]: readonly [Int32Array, Int32Array],
  { keep, side, maxModelLen }: TextLimits,
): PoolingPrompt {
  let texts: [Int32Array, Int32Array] = [first, second];
  if (keep !== null) {
    const room = Math.max(0, keep - numSpecialTokens(pieces));
    const [length1, length2] = pairLengths(first.length, second.length, room);
    const cut = (ids: Int32Array, length: number) =>
      side === 'left' ? ids.subarray(ids.length - length) : ids.subarray(0, length);
    texts = [cut(first, length1), cut(second, length2)];
  }
  const { ids, firstTypeOne } = applyTemplate(pieces, texts);
  const whole = {
    maxModelLen,
    maxOutputTokens: 0,
    maxOutputField: 'max_tokens',
    truncate: null,
    truncationSide: side,
  } as const;
  return { ids: promptFromIds([...ids], config.model.hf.vocabSize, whole), firstTypeOne, text: null };
}
