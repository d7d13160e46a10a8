import { HttpPool } from './http-connection.ts';
import { SseParser } from './sse-parser.ts';

export type Backend = 'openai' | 'openai-chat' | 'vllm';

/** A request of a dataset. */
export interface SampleRequest {
  /** Text, or token ids where the server takes them (completions). */
  prompt: string | number[];
  /** Tokens of the prompt where they are known without the server; else null. */
  promptLen: number | null;
  outputLen: number;
}

/** What became of a request. Times are in seconds. */
export interface RequestResult {
  success: boolean;
  error: string;
  promptLen: number;
  outputTokens: number;
  ttft: number;
  /** Between one chunk with text and the next. */
  itl: number[];
  latency: number;
}

/** Where requests go and what all have in common. */
export interface TargetOptions {
  backend: Backend;
  baseUrl: URL;
  endpoint: string;
  model: string;
  apiKey: string | null;
  ignoreEos: boolean;
  /** Fields that go into every body as they are. */
  extraBody: Readonly<Record<string, unknown>>;
}

interface StreamChunk {
  choices?: { text?: string; delta?: { content?: string | null; reasoning?: string | null } }[];
  usage?: { prompt_tokens?: number; completion_tokens?: number } | null;
  error?: unknown;
}

/** An OpenAI-compatible server under load. */
export class Target {
  private readonly pool: HttpPool;
  private readonly headers: Record<string, string>;

  constructor(private readonly options: TargetOptions) {
    this.pool = new HttpPool(options.baseUrl);
    this.headers = options.apiKey === null ? {} : { Authorization: `Bearer ${options.apiKey}` };
  }

  /** Sends one request and times its stream; never throws. */
  async send(request: SampleRequest): Promise<RequestResult> {
    const timing = new StreamTiming();
    let failure = '';
    const parser = new SseParser((data) => timing.onEvent(data));
    try {
      const path = this.options.baseUrl.pathname.replace(/\/$/, '') + this.options.endpoint;
      const { status } = await this.pool.post(path, this.headers, JSON.stringify(this.body(request)), (bytes) => {
        parser.push(bytes);
        if (!timing.sawEvent && failure.length < 500) failure += Buffer.from(bytes).toString();
      });
      if (status !== 200) timing.error = `HTTP ${status}: ${failure}`;
    } catch (error) {
      timing.error = (error as Error).message;
    }
    return timing.result(request);
  }

  close(): void {
    this.pool.close();
  }

  private body(request: SampleRequest): Record<string, unknown> {
    const { backend, model, ignoreEos, extraBody } = this.options;
    const common = { model, stream: true, stream_options: { include_usage: true }, temperature: 0, ...extraBody };
    const length = { max_tokens: request.outputLen, ...(ignoreEos ? { ignore_eos: true } : {}) };
    if (backend !== 'openai-chat') return { prompt: request.prompt, ...length, ...common };
    const { max_tokens, ...rest } = length;
    const messages = [{ role: 'user', content: request.prompt }];
    return { messages, max_completion_tokens: max_tokens, ...rest, ...common };
  }
}

class StreamTiming {
  error = '';
  sawEvent = false;
  private readonly started = performance.now();
  private firstMs = 0;
  private lastMs = 0;
  private readonly itl: number[] = [];
  private promptTokens: number | null = null;
  private outputTokens: number | null = null;

  onEvent(data: string): void {
    this.sawEvent = true;
    if (data === '[DONE]') return;
    const chunk = JSON.parse(data) as StreamChunk;
    if (chunk.error !== undefined) this.error = JSON.stringify(chunk.error);
    if (chunk.usage) {
      this.promptTokens = chunk.usage.prompt_tokens ?? null;
      this.outputTokens = chunk.usage.completion_tokens ?? null;
    }
    // A chat's first chunk has only a role: the server sends it before any token is computed.
    const choice = chunk.choices?.[0];
    if (choice === undefined || (choice.delta !== undefined && !choice.delta.content && !choice.delta.reasoning))
      return;
    this.onToken(performance.now());
  }

  result(request: SampleRequest): RequestResult {
    const success = this.error === '' && this.firstMs > 0;
    return {
      success,
      error: success ? '' : this.error || 'The stream had no token.',
      promptLen: request.promptLen ?? this.promptTokens ?? 0,
      outputTokens: this.outputTokens ?? this.itl.length + 1,
      ttft: (this.firstMs - this.started) / 1000,
      itl: this.itl,
      latency: (this.lastMs - this.started) / 1000,
    };
  }

  private onToken(nowMs: number): void {
    if (this.firstMs === 0) this.firstMs = nowMs;
    else this.itl.push((nowMs - this.lastMs) / 1000);
    this.lastMs = nowMs;
  }
}
