import * as v from 'valibot';
import type { EngineClient } from '../engine/engine-client.ts';
import { ValidationError } from '../errors/validation-error.ts';
import type { ReasoningFormat } from '../parsers/reasoning/reasoning-parser.ts';
import { resolveParsers } from '../parsers/resolve-parsers.ts';
import type { RequestOutputKind, SamplingParams as ResolvedSamplingParams } from '../sampling/sampling-params.ts';
import { ApiError } from '../server/errors.ts';
import { encodePrompt, type PromptLimits, promptFromIds } from '../server/generation/prompt.ts';
import {
  chatMessages,
  type RequestMessage,
  toolDefinitions,
  toTemplateMessages,
} from '../server/protocol/chat-messages.ts';
import { parseBody } from '../server/protocol/parse-body.ts';
import { StructuredOutputs } from '../structured-output/structured-outputs.ts';
import { type SamplingOptions, SamplingParams } from './sampling-params.ts';

/** Text, or ids that need no tokenizer. */
export type Prompt = string | readonly number[] | Int32Array;

/** A message of a conversation, as in the API. */
export type ChatMessage = Pick<RequestMessage, 'role' | 'content'> & Partial<RequestMessage>;

/** A function that the model may call, as in the API. */
export interface ChatTool {
  type: 'function';
  function: { name: string; description?: string; parameters?: Record<string, unknown> };
}

/** How a conversation becomes a prompt. */
export interface ChatOptions {
  tools?: readonly ChatTool[];
  /** Jinja text in place of the model's template. */
  chatTemplate?: string;
  /** Variables for the template: `{ enable_thinking: false }`. */
  chatTemplateKwargs?: Record<string, unknown>;
  /** Default true. */
  addGenerationPrompt?: boolean;
  /** Let the model go on with the last message. Default false. */
  continueFinalMessage?: boolean;
}

/** A prompt that is ready for the engine. */
export interface PreparedPrompt {
  /** null for a prompt of ids. */
  text: string | null;
  tokenIds: Int32Array;
}

const chatSchema = v.object({ messages: chatMessages, tools: v.nullish(toolDefinitions) });

/** Makes the engine's requests of prompts, conversations and parameters, by the API's rules. All its methods throw ValidationError. */
export class RequestBuilder {
  private readonly structuredOutputs: StructuredOutputs;
  private readonly reasoning: ReasoningFormat | null;

  constructor(private readonly engine: EngineClient) {
    this.reasoning = resolveParsers(engine.config.frontend).reasoning;
    this.structuredOutputs = new StructuredOutputs(engine.config, engine.tokenizer);
  }

  /** Ends what runs beside the engine for it. */
  close(): void {
    this.structuredOutputs.close();
  }

  async preparePrompt(prompt: Prompt): Promise<PreparedPrompt> {
    if (typeof prompt === 'string') {
      return { text: prompt, tokenIds: await encodePrompt(this.engine, prompt, true, this.limits) };
    }
    const wrong = prompt.find((id) => !Number.isInteger(id) || id < 0);
    if (wrong !== undefined) throw new ValidationError(`Token id ${wrong} is not an integer of at least 0.`, 'prompt');
    const { vocabSize } = this.engine.config.model.hf;
    return { text: null, tokenIds: promptFromIds([...prompt], vocabSize, this.limits) };
  }

  async prepareChat(messages: readonly ChatMessage[], options: ChatOptions): Promise<PreparedPrompt> {
    const checked = checkChat(messages, options.tools);
    const text = this.engine.renderChat({
      messages: toTemplateMessages(checked.messages),
      tools: checked.tools ?? null,
      addGenerationPrompt: options.addGenerationPrompt ?? options.continueFinalMessage !== true,
      continueFinalMessage: options.continueFinalMessage ?? false,
      chatTemplate: options.chatTemplate ?? null,
      chatTemplateKwargs: options.chatTemplateKwargs ?? null,
    });
    return { text, tokenIds: await encodePrompt(this.engine, text, false, this.limits) };
  }

  /** Without parameters the model's own defaults count. */
  async resolveParams(
    params: SamplingParams | SamplingOptions | undefined,
    promptTokenIds: Int32Array,
    outputKind?: RequestOutputKind,
  ): Promise<ResolvedSamplingParams> {
    const { config, tokenizer } = this.engine;
    const chosen = toSamplingParams(params) ?? SamplingParams.fromDefaults(config.model.defaultSamplingParams);
    return chosen.resolve({
      config,
      tokenizer,
      promptTokenIds,
      reasoning: this.reasoning,
      structuredOutputs: await this.structuredOutputs.resolve(chosen.structuredOutputsRequest()),
      outputKind: outputKind ?? chosen.options.outputKind ?? 'cumulative',
    });
  }

  private get limits(): PromptLimits {
    const { maxModelLen } = this.engine.config.model;
    return { maxModelLen, maxOutputTokens: 1, maxOutputField: 'max_tokens', truncate: null, truncationSide: 'left' };
  }
}

function toSamplingParams(params: SamplingParams | SamplingOptions | undefined): SamplingParams | undefined {
  return params === undefined || params instanceof SamplingParams ? params : new SamplingParams(params);
}

/** The types do not hold for programs in JavaScript, nor for data from elsewhere. */
function checkChat(messages: readonly ChatMessage[], tools: readonly ChatTool[] | undefined) {
  try {
    return parseBody(chatSchema, { messages, tools });
  } catch (error) {
    if (error instanceof ApiError) throw new ValidationError(error.message, error.param);
    throw error;
  }
}
