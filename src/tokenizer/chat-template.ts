import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ValidationError } from '../errors/validation-error.ts';
import { LoadError } from '../loader/load-error.ts';
import { prepareMessages } from './chat-content.ts';
import { type ContentFormat, detectContentFormat } from './content-format.ts';
import { JinjaTemplate, TemplateRaisedError } from './sandboxed-jinja.ts';
import type { ChatMessage, ChatTemplateInput, Tokenizer } from './tokenizer.ts';

/** Templates of requests that are kept compiled. */
const MAX_REQUEST_TEMPLATES = 16;

/** Variables that a request's `chat_template_kwargs` must not replace. */
const RESERVED = new Set([
  'messages',
  'tools',
  'documents',
  'add_generation_prompt',
  'raise_exception',
  'range',
  'strftime_now',
]);

export interface ChatTemplateOptions {
  /** Whose special tokens the template may name (`bos_token`, …). */
  tokenizer: Tokenizer;
  /** Jinja text of `--chat-template`. Default: the model's own. */
  override?: string | null;
  contentFormat?: 'auto' | ContentFormat;
  /** `--default-chat-template-kwargs`, under those of the request. */
  defaultKwargs?: Record<string, unknown>;
}

interface Compiled {
  template: JinjaTemplate;
  contentFormat: ContentFormat;
}

/** A model's chat template, or several by name: conversation in, prompt text out, as transformers' `apply_chat_template` does it. */
export class ChatTemplate {
  readonly #sources: ReadonlyMap<string, string>;
  readonly #options: ChatTemplateOptions;
  readonly #compiled = new Map<string, Compiled>();
  readonly #ofRequests = new Map<string, Compiled>();

  /** `sources`: Jinja text by name; "default" is the one to use, "tool_use" the one for requests with tools. May be empty. */
  constructor(sources: ReadonlyMap<string, string>, options: ChatTemplateOptions) {
    this.#sources = sources;
    this.#options = options;
    for (const [name, source] of sources) this.#compiled.set(name, this.#compile(source));
  }

  /**
   * The first there is of: the override, `chat_template.jinja`, `chat_template.json`, `chat_template` of tokenizer_config.json. None is no error
   * until a conversation is to be rendered.
   *
   * @throws LoadError for a file that can't be read and a template that is not one
   */
  static fromFolder(folder: string, options: ChatTemplateOptions): ChatTemplate {
    const { sources, origin } = findSources(folder, options.override ?? null);
    try {
      return new ChatTemplate(sources, options);
    } catch (error) {
      throw new LoadError(`${origin}: the chat template can't be used: ${(error as Error).message}`, { cause: error });
    }
  }

  /** The template's Jinja text (`/tokenizer_info`); null when the model has none. */
  get source(): string | null {
    return this.#sources.get('default') ?? null;
  }

  /**
   * @throws ValidationError for an empty conversation, for what the template refuses (`raise_exception`) or can't handle, and without a template
   */
  render(input: ChatTemplateInput): string {
    const { messages } = input;
    if (messages.length === 0) {
      throw new ValidationError('Cannot apply chat template to an empty conversation. Provide at least one message.');
    }
    if (input.continueFinalMessage && input.addGenerationPrompt) {
      throw new ValidationError('Cannot set both `continue_final_message` and `add_generation_prompt` to True.');
    }
    const { template, contentFormat } = this.#choose(input);
    const prepared = prepareMessages(messages, contentFormat);
    const text = renderOrRefuse(template, {
      ...allowedKwargs(this.#options.defaultKwargs),
      ...allowedKwargs(input.chatTemplateKwargs),
      messages: input.continueFinalMessage ? withEndMark(prepared) : prepared,
      tools: input.tools ?? null,
      documents: input.documents ?? null,
      add_generation_prompt: input.addGenerationPrompt,
    });
    return input.continueFinalMessage ? cutAtEndMark(text) : text;
  }

  #choose(input: ChatTemplateInput): Compiled {
    if (input.chatTemplate) return this.#compileOfRequest(input.chatTemplate);
    const hasTools = input.tools != null && input.tools.length > 0;
    const compiled = (hasTools ? this.#compiled.get('tool_use') : undefined) ?? this.#compiled.get('default');
    if (compiled !== undefined) return compiled;
    throw new ValidationError(
      'The model has no chat template: it takes prompts at /v1/completions, or needs --chat-template for conversations.',
    );
  }

  #compileOfRequest(source: string): Compiled {
    const known = this.#ofRequests.get(source);
    if (known !== undefined) return known;
    let compiled: Compiled;
    try {
      compiled = this.#compile(source);
    } catch (error) {
      throw new ValidationError(`chat_template is not a valid template: ${(error as Error).message}`, 'chat_template');
    }
    const oldest = this.#ofRequests.keys().next();
    if (this.#ofRequests.size >= MAX_REQUEST_TEMPLATES && !oldest.done) this.#ofRequests.delete(oldest.value);
    this.#ofRequests.set(source, compiled);
    return compiled;
  }

  #compile(source: string): Compiled {
    const template = new JinjaTemplate(source, Object.fromEntries(this.#options.tokenizer.specialTokens ?? []));
    const format = this.#options.contentFormat ?? 'auto';
    return { template, contentFormat: format === 'auto' ? detectContentFormat(template) : format };
  }
}

function renderOrRefuse(template: JinjaTemplate, variables: Record<string, unknown>): string {
  try {
    return template.render(variables);
  } catch (error) {
    if (error instanceof TemplateRaisedError) throw new ValidationError(error.message);
    // A recursion without end is a RangeError here.
    throw new ValidationError(`The chat template can't render this conversation: ${(error as Error).message}`);
  }
}

function allowedKwargs(kwargs: Record<string, unknown> | null | undefined): Record<string, unknown> {
  return Object.fromEntries(Object.entries(kwargs ?? {}).filter(([name]) => !RESERVED.has(name)));
}

/**
 * Marks where the last message's text ends, so that the place is found again whatever the template does around it.
 * The space tells whether the template trims: then what is before the mark has to be trimmed in its place. After transformers' way.
 */
const END_MARK = '\u{E000}BAO-END-OF-FINAL-MESSAGE\u{E000}';
const END_MARK_AND_SPACE = `${END_MARK} `;

function withEndMark(messages: ChatMessage[]): ChatMessage[] {
  const last = messages.at(-1)!;
  const { content } = last;
  if (typeof content === 'string')
    return [...messages.slice(0, -1), { ...last, content: content + END_MARK_AND_SPACE }];
  const parts = content ?? [];
  const final = parts.at(-1);
  if (final === undefined) {
    throw new ValidationError('continue_final_message is set but the final message has no text to continue.');
  }
  const marked = [...parts.slice(0, -1), { ...final, text: (final.text ?? '') + END_MARK_AND_SPACE }];
  return [...messages.slice(0, -1), { ...last, content: marked }];
}

function cutAtEndMark(text: string): string {
  const end = text.lastIndexOf(END_MARK);
  if (end === -1) {
    throw new ValidationError(
      'continue_final_message is set but the final message does not appear in the chat after applying the chat template.',
    );
  }
  const cut = text.slice(0, end);
  return text.startsWith(END_MARK_AND_SPACE, end) ? cut : cut.trimEnd();
}

interface Sources {
  sources: Map<string, string>;
  /** For errors. */
  origin: string;
}

function findSources(folder: string, override: string | null): Sources {
  if (override !== null) return { sources: new Map([['default', override]]), origin: '--chat-template' };
  const jinjaPath = join(folder, 'chat_template.jinja');
  if (existsSync(jinjaPath)) {
    return { sources: new Map([['default', readFileSync(jinjaPath, 'utf8')]]), origin: jinjaPath };
  }
  for (const path of [join(folder, 'chat_template.json'), join(folder, 'tokenizer_config.json')]) {
    if (!existsSync(path)) continue;
    const sources = sourcesOfField(path, (readJson(path) as { chat_template?: unknown } | null)?.chat_template);
    if (sources.size > 0) return { sources, origin: path };
  }
  return { sources: new Map(), origin: folder };
}

/** `chat_template` is a text or a list of { name, template }. */
function sourcesOfField(path: string, field: unknown): Map<string, string> {
  if (field === undefined || field === null) return new Map();
  if (typeof field === 'string') return new Map([['default', field]]);
  if (!Array.isArray(field))
    throw new LoadError(`${path}: chat_template is neither a text nor a list of named templates.`);
  const sources = new Map<string, string>();
  for (const { name, template } of field as { name?: unknown; template?: unknown }[]) {
    if (typeof name !== 'string' || typeof template !== 'string') {
      throw new LoadError(`${path}: an entry of chat_template lacks its name or its template.`);
    }
    sources.set(name, template);
  }
  return sources;
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new LoadError(`${path}: not valid JSON: ${(error as Error).message}.`, { cause: error });
  }
}
