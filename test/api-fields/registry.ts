import { CHAT_CASES, NAMED_CHOICE_CASES, STREAM_CASES, TOOL_CASES } from './chat-cases.ts';
import { COMPLETION_CASES } from './completion-cases.ts';
import { CHAT, COMPLETION, MESSAGE, MESSAGES, RESPONSE } from './endpoints.ts';
import type { FieldCases, Place } from './field-case.ts';
import { STRUCTURED_OUTPUT_CASES } from './generation-cases.ts';
import { COUNT_TOKENS_CASES, MESSAGES_CASES } from './messages-cases.ts';
import { RESPONSES_CASES } from './responses-cases.ts';
import { DETOKENIZE_CASES, TOKENIZE_CASES, TOKENIZE_CHAT_CASES } from './tokenizer-cases.ts';
import { CALL, OTHER, TOOLS } from './tools.ts';

/** Fields of one of vLLM's schemas that work here, each with the check of its meaning. */
export interface SchemaCases {
  place: Place;
  cases: FieldCases;
}

const chat = { path: CHAT.path, base: { ...CHAT.base, max_tokens: 60 } };

/** By the schema's name. What docs/api.md says works is here, and every check runs in test/e2e/api-table.test.ts. */
export const FIELD_CASES: Readonly<Record<string, SchemaCases>> = {
  ChatCompletionRequest: { place: CHAT, cases: CHAT_CASES },
  CompletionRequest: { place: COMPLETION, cases: COMPLETION_CASES },
  ResponsesRequest: { place: RESPONSE, cases: RESPONSES_CASES },
  AnthropicMessagesRequest: { place: MESSAGE, cases: MESSAGES_CASES },
  AnthropicCountTokensRequest: {
    place: { path: '/v1/messages/count_tokens', base: { model: 'demo', messages: MESSAGES } },
    cases: COUNT_TOKENS_CASES,
  },
  DetokenizeRequest: { place: { path: '/detokenize', base: { tokens: [300] } }, cases: DETOKENIZE_CASES },
  TokenizeCompletionRequest: { place: { path: '/tokenize', base: { prompt: 'an owl' } }, cases: TOKENIZE_CASES },
  TokenizeChatRequest: { place: { path: '/tokenize', base: { messages: MESSAGES } }, cases: TOKENIZE_CHAT_CASES },
  StreamOptions: {
    place: {
      path: CHAT.path,
      base: { ...CHAT.base, stream: true },
      nest: (fields, { stream_options: others }) => ({ stream_options: { ...others, ...fields } }),
    },
    cases: STREAM_CASES,
  },
  StructuredOutputsParams: {
    place: {
      ...COMPLETION,
      nest: (fields, { structured_outputs: others }) => ({ structured_outputs: { ...others, ...fields } }),
    },
    cases: STRUCTURED_OUTPUT_CASES,
  },
  ChatCompletionToolsParam: {
    place: { ...chat, nest: (fields) => ({ tools: [{ ...TOOLS[0], ...fields }] }) },
    cases: TOOL_CASES,
  },
  ChatCompletionNamedToolChoiceParam: {
    place: {
      path: chat.path,
      base: { ...chat.base, tools: [...TOOLS, OTHER] },
      nest: (fields) => ({ tool_choice: { ...CALL, ...fields } }),
    },
    cases: NAMED_CHOICE_CASES,
  },
};
