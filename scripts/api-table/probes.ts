/** What the table asks the server, to see what becomes of each field: values that ask for something, never a default. */

type Body = Record<string, unknown>;

const MESSAGES = [{ role: 'user', content: 'What is the capital of France?' }];
const SCHEMA = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] };
const FUNCTION = { name: 'get_weather', description: 'The weather', parameters: SCHEMA };
const TOOLS = [{ type: 'function', function: FUNCTION }];
const CALL = { type: 'function', function: { name: 'get_weather' } };

/** A request of each schema that is answered, which every probe is added to. */
export const BASES: Readonly<Record<string, { path: string; body: Body }>> = {
  ChatCompletionRequest: { path: '/v1/chat/completions', body: { messages: MESSAGES, max_tokens: 4 } },
  CompletionRequest: { path: '/v1/completions', body: { prompt: 'The capital of France is', max_tokens: 4 } },
  ResponsesRequest: { path: '/v1/responses', body: { input: 'What is the capital of France?', max_output_tokens: 4 } },
  AnthropicMessagesRequest: { path: '/v1/messages', body: { model: 'demo', messages: MESSAGES, max_tokens: 4 } },
  AnthropicCountTokensRequest: { path: '/v1/messages/count_tokens', body: { model: 'demo', messages: MESSAGES } },
  TokenizeCompletionRequest: { path: '/tokenize', body: { prompt: 'hello' } },
  TokenizeChatRequest: { path: '/tokenize', body: { messages: MESSAGES } },
  DetokenizeRequest: { path: '/detokenize', body: { tokens: [300, 301] } },
  StreamOptions: { path: '/v1/chat/completions', body: { messages: MESSAGES, max_tokens: 4, stream: true } },
  StructuredOutputsParams: { path: '/v1/chat/completions', body: { messages: MESSAGES, max_tokens: 4 } },
  ChatCompletionToolsParam: { path: '/v1/chat/completions', body: { messages: MESSAGES, max_tokens: 4 } },
  ChatCompletionNamedToolChoiceParam: {
    path: '/v1/chat/completions',
    body: { messages: MESSAGES, max_tokens: 4, tools: TOOLS },
  },
};

/** Schemas of objects within a body: where they go, and what they need besides the field in question. */
const NESTED: Readonly<Record<string, (fields: Body) => Body>> = {
  StreamOptions: (fields) => ({ stream_options: fields }),
  StructuredOutputsParams: (fields) => ({
    structured_outputs: MODIFIERS.has(Object.keys(fields)[0]!) ? { json: SCHEMA, ...fields } : fields,
  }),
  ChatCompletionToolsParam: (fields) => ({ tools: [{ ...TOOLS[0], ...fields }] }),
  ChatCompletionNamedToolChoiceParam: (fields) => ({ tool_choice: { ...CALL, ...fields } }),
};

/** They change a constraint and are none. */
const MODIFIERS = new Set([
  'disable_any_whitespace',
  'disable_additional_properties',
  'whitespace_pattern',
  '_backend',
  '_backend_was_auto',
]);

/** By field, or `Schema.field` where a field means different things. */
const VALUES: Readonly<Record<string, unknown>> = {
  messages: MESSAGES,
  model: 'demo',
  prompt: 'The capital of France is',
  input: 'Hello',
  tokens: [300, 301],
  tools: TOOLS,
  'ResponsesRequest.tools': [{ type: 'function', ...FUNCTION }],
  'AnthropicMessagesRequest.tools': [{ name: 'get_weather', input_schema: SCHEMA }],
  'AnthropicCountTokensRequest.tools': [{ name: 'get_weather', input_schema: SCHEMA }],
  tool_choice: 'none',
  'ChatCompletionRequest.tool_choice': CALL,
  'AnthropicMessagesRequest.tool_choice': { type: 'none' },
  'AnthropicCountTokensRequest.tool_choice': { type: 'none' },
  logprobs: true,
  'CompletionRequest.logprobs': 1,
  response_format: { type: 'json_schema', json_schema: { name: 'city', schema: SCHEMA } },
  stream_options: { include_usage: true },
  reasoning_effort: 'low',
  reasoning: { effort: 'low' },
  text: { format: { type: 'json_schema', name: 'city', schema: SCHEMA } },
  thinking: { type: 'enabled', budget_tokens: 1024 },
  output_config: { format: { type: 'json_schema', schema: SCHEMA } },
  system: 'Be brief.',
  structured_outputs: { choice: ['yes', 'no'] },
  stop: ['.'],
  stop_sequences: ['.'],
  logit_bias: { 300: 5 },
  truncation_side: 'right',
  truncation: 'auto',
  chat_template: '{{ messages[0].content }}',
  request_id: 'probe',
  previous_response_id: 'resp_unknown',
  previous_input_messages: [{ role: 'user' }],
  include: ['message.output_text.logprobs'],
  metadata: { topic: 'capitals' },
  service_tier: 'auto',
  mm_payload: 'none',
  prompt_embeds: 'AAAA',
  documents: [{ text: 'Paris is the capital of France.' }],
  repetition_detection: { max_pattern_size: 8, min_pattern_size: 1, min_count: 4 },
  // A parameter of the plugin that the table's server has.
  vllm_xargs: { no_repeat_ngram_size: 2 },
  json: SCHEMA,
  regex: '[a-z]+',
  choice: ['yes', 'no'],
  grammar: 'start: "yes" | "no"',
  structural_tag: JSON.stringify({
    structures: [{ begin: '<f>', schema: SCHEMA, end: '</f>' }],
    triggers: ['<f>'],
  }),
  whitespace_pattern: '[ ]?',
  function: FUNCTION,
  'ChatCompletionNamedToolChoiceParam.function': { name: 'get_weather' },
  type: 'function',
  instructions: 'Be brief.',
  suffix: 'and so on',
  user: 'somebody',
  session_id: 'one',
  cache_salt: 'salt',
  prompt_cache_key: 'key',
  allowed_token_ids: [300, 301],
  bad_words: ['bad'],
  stop_token_ids: [300],
  logprob_token_ids: [300],
  temperature: 0.5,
  top_p: 0.9,
  top_k: 5,
  min_p: 0.1,
  presence_penalty: 0.5,
  frequency_penalty: 0.5,
  repetition_penalty: 1.1,
  length_penalty: 1.2,
  thinking_token_budget: 4,
  max_tool_calls: 2,
  priority: 0,
  return_mm_kwargs: true,
  n: 2,
};

/** Fields that the server lets be without effect: objects for what it does not have. */
const OBJECTS = /_kwargs$|_params$/;
const NUMBERS = /^(max|min|top|stream_interval|prompt_logprobs|truncate|routed|seed)/;

/** What a field needs beside it. */
const COMPANIONS: Readonly<Record<string, Body>> = {
  top_logprobs: { logprobs: true },
  logprob_token_ids: { logprobs: true },
  'CompletionRequest.logprob_token_ids': { logprobs: 1 },
  'ResponsesRequest.top_logprobs': { include: ['message.output_text.logprobs'] },
  stream_options: { stream: true },
  tool_choice: { tools: TOOLS },
  parallel_tool_calls: { tools: TOOLS },
  'ResponsesRequest.tool_choice': {},
  'ResponsesRequest.parallel_tool_calls': {},
  'AnthropicMessagesRequest.tool_choice': { tools: [{ name: 'get_weather', input_schema: SCHEMA }] },
  'AnthropicCountTokensRequest.tool_choice': { tools: [{ name: 'get_weather', input_schema: SCHEMA }] },
  continue_final_message: { add_generation_prompt: false },
  truncation_side: { truncate_prompt_tokens: 3 },
  length_penalty: { use_beam_search: true },
  min_tokens: { ignore_eos: true },
};

/** The request that shows what becomes of a field. */
export function probe(schema: string, field: string): { path: string; body: Body } {
  const { path, body } = BASES[schema]!;
  const value = VALUES[`${schema}.${field}`] ?? VALUES[field] ?? guess(field);
  const companions = COMPANIONS[`${schema}.${field}`] ?? COMPANIONS[field] ?? {};
  const nest = NESTED[schema] ?? ((fields) => fields);
  return { path, body: { ...body, ...companions, ...nest({ [field]: value }) } };
}

function guess(field: string): unknown {
  if (OBJECTS.test(field)) return { key: 'value' };
  return NUMBERS.test(field) ? 2 : true;
}
