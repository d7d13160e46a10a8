import { LONGEST_TIMER_S } from '../longest-timer.ts';
import type { FlagTable } from './flag.ts';

const listening = {
  host: {
    type: 'string',
    default: null,
    env: 'BAO_HOST',
    help: 'Address to listen on; by default all of them.',
  },
  port: {
    type: 'int',
    default: 8000,
    min: 0,
    max: 65535,
    env: 'BAO_PORT',
    help: 'Port to listen on; 0: a free one, named in the log.',
  },
  uds: {
    type: 'string',
    default: null,
    metavar: 'PATH',
    help: 'Unix domain socket to listen on, in place of host and port.',
  },
  'root-path': {
    type: 'string',
    default: null,
    metavar: 'PATH',
    help: 'Path under which a proxy publishes this server ("/llm"); routes answer with and without it.',
  },
  'api-server-count': {
    type: 'int',
    default: 1,
    min: 1,
    max: 256,
    aliases: ['-asc'],
    help: 'Threads that answer HTTP and tokenize, on one port.',
  },
  'shutdown-timeout': {
    type: 'int',
    default: 0,
    min: 0,
    max: LONGEST_TIMER_S,
    metavar: 'SECONDS',
    help: 'How long running requests may go on after the first SIGINT or SIGTERM; 0: they are aborted at once.',
  },
  'request-timeout': {
    type: 'float',
    default: null,
    min: 0.001,
    max: LONGEST_TIMER_S,
    metavar: 'SECONDS',
    help: 'Longest that an answer may take, from the moment its request is queued to its last token; then it is aborted, with 503 or an error event. By default there is no limit.',
  },
  'request-body-timeout': {
    type: 'float',
    default: 30,
    min: 0.001,
    max: LONGEST_TIMER_S,
    metavar: 'SECONDS',
    help: 'Longest that 64 KiB of a request body, or what there is of it, may take to arrive; a slower one is answered 408.',
  },
  'http-timeout-keep-alive': {
    type: 'int',
    default: 60,
    min: 1,
    max: 255,
    env: 'BAO_HTTP_TIMEOUT_KEEP_ALIVE',
    metavar: 'SECONDS',
    help: 'How long a connection may stay open without a request.',
  },
  'sse-keep-alive-interval': {
    type: 'float',
    default: 0,
    min: 0,
    max: LONGEST_TIMER_S,
    metavar: 'SECONDS',
    help: 'A stream that has no event for so long sends a comment, so that proxies do not take it for dead; 0: it stays silent.',
  },
  'limit-concurrency': {
    type: 'int',
    default: null,
    min: 1,
    metavar: 'N',
    help: "Most requests that an API server reads and answers at once, streams included; more are answered 503 before their bodies are read. The operator's paths (/health, /metrics, …) don't wait. By default there is no limit.",
  },
  'request-body-limit': {
    type: 'bytes',
    default: 32 * 2 ** 20,
    min: 1,
    help: 'Largest request body; a larger one is answered 413.',
  },
  'server-dev-mode': {
    type: 'boolean',
    default: false,
    env: 'BAO_SERVER_DEV_MODE',
    help: "Serve the routes of development: /sleep, /wake_up, /is_sleeping, /reset_prefix_cache, /server_info. Whoever reaches them can stop the server's work.",
  },
} as const satisfies FlagTable;

const security = {
  'api-key': {
    type: 'list',
    default: [],
    env: 'BAO_API_KEY',
    secret: true,
    metavar: 'KEY',
    help: 'Keys of which a request must bring one as a bearer token (to /v1/messages also as x-api-key); several are allowed.',
  },
  'ssl-keyfile': { type: 'string', default: null, metavar: 'FILE', help: 'Private key for TLS, PEM.' },
  'ssl-certfile': { type: 'string', default: null, metavar: 'FILE', help: 'Certificate chain for TLS, PEM.' },
  'ssl-ca-certs': {
    type: 'string',
    default: null,
    metavar: 'FILE',
    help: 'Authorities against which certificates of clients are checked, PEM.',
  },
  'ssl-cert-reqs': {
    type: 'int',
    default: 0,
    min: 0,
    max: 2,
    help: 'Certificate of the client: 0 not asked for, 1 asked for, 2 required.',
  },
  'enable-ssl-refresh': {
    type: 'boolean',
    default: false,
    help: 'Use changed TLS files for new connections, without a restart.',
  },
  'allowed-origins': {
    type: 'list',
    default: [],
    metavar: 'ORIGIN',
    help: 'Origins that browsers may call from (CORS); * is any.',
  },
  'allowed-methods': { type: 'list', default: ['*'], metavar: 'METHOD', help: 'Methods that CORS allows.' },
  'allowed-headers': { type: 'list', default: ['*'], metavar: 'HEADER', help: 'Request headers that CORS allows.' },
  'allow-credentials': { type: 'boolean', default: false, help: 'Let browsers send credentials (CORS).' },
} as const satisfies FlagTable;

const chat = {
  'chat-template': {
    type: 'string',
    default: null,
    metavar: 'FILE|TEXT',
    help: "Jinja chat template, as a file or as text, in place of the model's own.",
  },
  'chat-template-content-format': {
    type: 'string',
    choices: ['auto', 'string', 'openai'],
    default: 'auto',
    help: "How the template sees a message's content: one string, or the list of parts as in the OpenAI API; auto looks at the template.",
  },
  'default-chat-template-kwargs': {
    type: 'json',
    default: {},
    help: "Variables for the chat template ('{\"enable_thinking\": false}') that a request's chat_template_kwargs may replace.",
  },
  'trust-request-chat-template': {
    type: 'boolean',
    default: false,
    help: 'Let a request bring a chat template of its own.',
  },
  'response-role': {
    type: 'string',
    default: 'assistant',
    metavar: 'ROLE',
    help: "Role of the answer's message.",
  },
} as const satisfies FlagTable;

const tools = {
  'enable-auto-tool-choice': {
    type: 'boolean',
    default: false,
    help: 'Let the model decide whether to call tools (tool_choice auto); needs --tool-call-parser.',
  },
  'tool-call-parser': {
    type: 'string',
    default: null,
    metavar: 'NAME',
    help: 'Format in which the model writes tool calls: deepseek_v3, functiongemma, granite, hermes, llama3_json, mistral, openai, phi4_mini_json, pythonic, qwen3_coder, or one that a plugin registers.',
  },
  'tool-parser-plugin': {
    type: 'string',
    default: null,
    metavar: 'MODULE',
    help: 'Plugin that registers the parser which --tool-call-parser names.',
  },
  'exclude-tools-when-tool-choice-none': {
    type: 'boolean',
    default: false,
    help: 'With tool_choice none the chat template does not see the tools.',
  },
  'reasoning-parser': {
    type: 'string',
    default: null,
    metavar: 'NAME',
    help: 'Format in which the model writes its reasoning: deepseek_r1, granite, mistral, openai_gptoss, qwen3, a pair of tags (<think>...</think>), or one that a plugin registers.',
  },
  'reasoning-parser-plugin': {
    type: 'string',
    default: null,
    metavar: 'MODULE',
    help: 'Plugin that registers the parser which --reasoning-parser names.',
  },
} as const satisfies FlagTable;

const answers = {
  'return-tokens-as-token-ids': {
    type: 'boolean',
    default: false,
    help: 'Write tokens in log probabilities as "token_id:123".',
  },
  'enable-prompt-tokens-details': {
    type: 'boolean',
    default: false,
    help: 'Report prompt tokens found in the prefix cache in the usage.',
  },
  'enable-force-include-usage': {
    type: 'boolean',
    default: false,
    help: 'Give every event of a stream its usage, and close the stream with it, asked for or not.',
  },
  'enable-server-load-tracking': {
    type: 'boolean',
    default: false,
    help: 'Count requests in progress for /load.',
  },
  'enable-tokenizer-info-endpoint': {
    type: 'boolean',
    default: false,
    help: "Serve the tokenizer's configuration and chat template at /tokenizer_info.",
  },
  'disable-fastapi-docs': {
    type: 'boolean',
    default: false,
    help: 'Serve no API documentation at /openapi.json and /docs.',
  },
  'enable-request-id-headers': {
    type: 'boolean',
    default: false,
    help: "Give every answer an X-Request-Id header, the client's own where it sent one.",
  },
  'fingerprint-mode': {
    type: 'string',
    choices: ['full', 'hash', 'custom', 'none'],
    default: 'full',
    help: 'system_fingerprint of answers: version and configuration in clear (full), their hash, the text of fingerprint-value (custom), or none.',
  },
  'fingerprint-value': {
    type: 'string',
    default: null,
    metavar: 'TEXT',
    help: 'system_fingerprint with fingerprint-mode custom.',
  },
} as const satisfies FlagTable;

const logs = {
  'enable-log-requests': {
    type: 'boolean',
    default: false,
    help: 'Log each request with its sampling parameters, and with log-level debug its prompt.',
  },
  'max-log-len': {
    type: 'int',
    default: null,
    min: 0,
    metavar: 'LENGTH',
    help: 'Most characters or token ids of a prompt in the log; by default all.',
  },
  'disable-uvicorn-access-log': {
    type: 'boolean',
    default: false,
    help: 'No line in the log for each answered request.',
  },
  'disable-access-log-for-endpoints': {
    type: 'list',
    default: [],
    separator: ',',
    metavar: 'PATHS',
    help: 'Paths whose requests are not in the access log: /health,/metrics.',
  },
} as const satisfies FlagTable;

export const frontendFlags = {
  ...listening,
  ...security,
  ...chat,
  ...tools,
  ...answers,
  ...logs,
} as const satisfies FlagTable;
