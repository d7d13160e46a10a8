import { Counter, type Registry } from 'prom-client';

export interface ToolParserObservation {
  requestType: 'chat_completions' | 'responses' | 'other';
  isStreaming: boolean;
  hasToolCall: boolean;
}

/** What becomes of searching answers for tool calls; labels are vLLM's. */
export class ParserMetrics {
  private readonly invocations: Counter<'mode' | 'model_name' | 'outcome' | 'request_type'>;

  constructor(
    registry: Registry,
    private readonly modelName: string,
  ) {
    this.invocations = new Counter({
      name: 'vllm:tool_call_parser_invocations_total',
      help: 'Runs of the tool parser: one for each choice of a whole answer, one for each piece of a stream.',
      labelNames: ['mode', 'model_name', 'outcome', 'request_type'],
      registers: [registry],
    });
  }

  observe({ requestType, isStreaming, hasToolCall }: ToolParserObservation): void {
    this.invocations.inc({
      mode: isStreaming ? 'streaming' : 'non_streaming',
      model_name: this.modelName,
      outcome: hasToolCall ? 'tool_call' : 'no_tool_call',
      request_type: requestType,
    });
  }
}
