import { existsSync } from 'node:fs';
import type { BaoConfig } from './bao-config.ts';
import { ConfigError, UsageError } from './config-error.ts';
import type { FlagValues } from './flags/index.ts';
import { ONE_DEVICE } from './flags/unsupported.ts';
import { checkLoRAFlags } from './lora-config.ts';
import { tokensPerDecode } from './speculative-config.ts';

const BLOCK_SIZES = [8, 16, 32, 64, 128];
/** Of sun_path, less its closing zero. */
const UNIX_PATH_LIMIT = 107;

/** Flags against each other, before the model is looked at. Throws UsageError (or ConfigError for files that are not there). */
export function checkFlags(values: FlagValues): void {
  checkRanges(values);
  checkOneDevice(values);
  checkListening(values);
  checkTls(values);
  checkHttp(values);
  checkFrontend(values);
  checkTracing(values);
  checkLoRAFlags(values);
}

function checkRanges(values: FlagValues): void {
  const { gpuMemoryUtilization, watermark, blockSize, cpuThreads, dataParallelSize } = values;
  if (!(gpuMemoryUtilization > 0 && gpuMemoryUtilization <= 1)) {
    throw new UsageError(`--gpu-memory-utilization must be above 0 and at most 1, not ${gpuMemoryUtilization}.`);
  }
  if (!(watermark >= 0 && watermark < 1)) {
    throw new UsageError(`--watermark must be at least 0 and below 1, not ${watermark}.`);
  }
  if (!BLOCK_SIZES.includes(blockSize)) {
    throw new UsageError(`--block-size must be one of ${BLOCK_SIZES.join(', ')}, not ${blockSize}.`);
  }
  if (cpuThreads !== null && cpuThreads < dataParallelSize) {
    throw new UsageError(
      `--cpu-threads ${cpuThreads} is less than --data-parallel-size ${dataParallelSize}: each engine core needs a thread.`,
    );
  }
}

/** Command lines made for vLLM often say so although it is the default. */
function checkOneDevice({ tensorParallelSize, pipelineParallelSize }: FlagValues): void {
  const sizes = { 'tensor-parallel-size': tensorParallelSize, 'pipeline-parallel-size': pipelineParallelSize };
  for (const [flag, size] of Object.entries(sizes)) {
    if (size === 1) continue;
    throw new UsageError(`--${flag} must be 1, not ${size}: ${ONE_DEVICE}.`);
  }
}

function checkListening({ uds, host, apiServerCount, rootPath }: FlagValues): void {
  if (uds !== null) {
    // The system would choose an address that nobody knows.
    if (uds === '') throw new UsageError('--uds must not be empty.');
    if (host !== null)
      throw new UsageError(
        '--uds and --host exclude each other: the server listens on a socket file or on an address.',
      );
    if (apiServerCount > 1)
      throw new UsageError('--uds needs --api-server-count 1: a socket file is listened on by one thread.');
    if (Buffer.byteLength(uds) > UNIX_PATH_LIMIT) {
      throw new UsageError(`--uds: the path is longer than the ${UNIX_PATH_LIMIT} bytes that a socket may have.`);
    }
  }
  if (rootPath !== null && !/^\/[^?#]*$/.test(rootPath)) {
    throw new UsageError(`--root-path must begin with a slash ("/llm"), not "${rootPath}".`);
  }
}

function checkTls({ sslKeyfile, sslCertfile, sslCaCerts, sslCertReqs, enableSslRefresh, uds }: FlagValues): void {
  if (enableSslRefresh && (sslKeyfile === null || uds !== null))
    throw new UsageError('--enable-ssl-refresh needs --ssl-keyfile and --ssl-certfile, and no --uds.');
  if (sslKeyfile !== null && sslCertfile === null) throw new UsageError('--ssl-keyfile needs --ssl-certfile.');
  if (sslCertfile !== null && sslKeyfile === null) throw new UsageError('--ssl-certfile needs --ssl-keyfile.');
  if (sslCaCerts !== null && sslKeyfile === null)
    throw new UsageError('--ssl-ca-certs needs --ssl-keyfile and --ssl-certfile.');
  if (sslCertReqs > 0 && sslCaCerts === null) {
    throw new UsageError(
      `--ssl-cert-reqs ${sslCertReqs} needs --ssl-ca-certs, to check the clients' certificates against.`,
    );
  }
  const files = { 'ssl-keyfile': sslKeyfile, 'ssl-certfile': sslCertfile, 'ssl-ca-certs': sslCaCerts };
  for (const [flag, path] of Object.entries(files)) {
    if (path !== null && !existsSync(path)) throw new ConfigError(`--${flag}: ${path} does not exist.`);
  }
}

/** What would never match anything, since it is not what a browser sends or what a request's path looks like. */
function checkHttp({ allowedOrigins, disableAccessLogForEndpoints }: FlagValues): void {
  for (const origin of allowedOrigins) {
    if (origin === '*' || origin === 'null' || /^[a-z][a-z0-9+.-]*:\/\/[^/?#]+$/i.test(origin)) continue;
    throw new UsageError(
      `--allowed-origins takes *, or origins as browsers send them, such as https://example.com:8080, without a path or a slash at the end, not "${origin}".`,
    );
  }
  for (const path of disableAccessLogForEndpoints) {
    if (path.startsWith('/')) continue;
    throw new UsageError(`--disable-access-log-for-endpoints takes paths such as /health, not "${path}".`);
  }
}

function checkTracing({ otlpTracesEndpoint: url }: FlagValues): void {
  if (url === null || /^https?:$/.test(URL.parse(url)?.protocol ?? '')) return;
  throw new UsageError(
    `--otlp-traces-endpoint must be the http:// or https:// URL of a collector for protobuf over HTTP (not gRPC), such as http://localhost:4318/v1/traces, not "${url}".`,
  );
}

function checkFrontend(values: FlagValues): void {
  const { fingerprintMode, fingerprintValue, apiKey, servedModelName, skipTokenizerInit, tokenizer } = values;
  const { enableAutoToolChoice, toolCallParser } = values;
  if (fingerprintMode === 'custom' && fingerprintValue === null) {
    throw new UsageError('--fingerprint-mode custom needs --fingerprint-value.');
  }
  if (fingerprintMode !== 'custom' && fingerprintValue !== null) {
    throw new UsageError(`--fingerprint-value needs --fingerprint-mode custom, not ${fingerprintMode}.`);
  }
  if (enableAutoToolChoice && toolCallParser === null) {
    throw new UsageError('--enable-auto-tool-choice needs --tool-call-parser.');
  }
  if (apiKey.includes('')) throw new UsageError('--api-key must not be empty.');
  if (servedModelName.includes('')) throw new UsageError('--served-model-name must not be empty.');
  if (skipTokenizerInit && tokenizer !== null) {
    throw new UsageError('--tokenizer and --skip-tokenizer-init exclude each other.');
  }
}

export interface MachineFacts {
  /** That this process may use. */
  cpuCores: number;
  /** Null: the model does not run on GPUs. */
  gpus: number | null;
}

/** The parallel size against the devices that there are. Throws ConfigError. */
export function checkDevices({ dataParallelSize, cpuThreads }: FlagValues, { cpuCores, gpus }: MachineFacts): void {
  if (gpus !== null && dataParallelSize > gpus) {
    throw new ConfigError(
      `--data-parallel-size ${dataParallelSize} is more than the CUDA devices there are, ${gpus}: each engine core has one of its own.`,
    );
  }
  if (gpus === null && cpuThreads === null && dataParallelSize > cpuCores) {
    throw new ConfigError(
      `--data-parallel-size ${dataParallelSize} is more than the CPU cores there are, ${cpuCores}; with --cpu-threads ${dataParallelSize} the engine cores share them.`,
    );
  }
}

/** The resolved configuration against the model. Throws ConfigError. */
export function checkConfig({ scheduler, model, speculative }: BaoConfig): void {
  const { maxNumBatchedTokens, maxNumSeqs, enableChunkedPrefill, longPrefillTokenThreshold } = scheduler;
  if (maxNumBatchedTokens < model.maxModelLen && !enableChunkedPrefill) {
    throw new ConfigError(
      `--max-num-batched-tokens ${maxNumBatchedTokens} is less than --max-model-len ${model.maxModelLen}: without chunked prefill a step must hold the longest prompt.`,
    );
  }
  if (maxNumBatchedTokens < maxNumSeqs) {
    throw new ConfigError(
      `--max-num-batched-tokens ${maxNumBatchedTokens} is less than --max-num-seqs ${maxNumSeqs}: each running request needs one token of a step.`,
    );
  }
  const perRequest = tokensPerDecode(speculative);
  if (maxNumBatchedTokens < maxNumSeqs * perRequest) {
    throw new ConfigError(
      `--max-num-batched-tokens ${maxNumBatchedTokens} is less than --max-num-seqs ${maxNumSeqs} times ${perRequest}: each running request needs one token of a step, and one for each of its drafts.`,
    );
  }
  if (longPrefillTokenThreshold > model.maxModelLen) {
    throw new ConfigError(
      `--long-prefill-token-threshold ${longPrefillTokenThreshold} is more than --max-model-len ${model.maxModelLen}, so that it would never count.`,
    );
  }
}

/** What works but is likely not meant, one sentence each. `cores`: CPU cores that this process may use. */
export function configWarnings(config: BaoConfig, cores: number): string[] {
  const warnings: string[] = [];
  const { dataParallelSize } = config.parallel;
  const { cpuThreads } = config.device;
  const { apiServerCount } = config.frontend;
  if (dataParallelSize > cores) {
    warnings.push(
      `--data-parallel-size ${dataParallelSize} is more than the ${cores} CPU cores there are: engine cores will wait for each other.`,
    );
  }
  if (cpuThreads !== null && cpuThreads > cores) {
    warnings.push(
      `--cpu-threads ${cpuThreads} is more than the ${cores} CPU cores there are: threads will wait for each other.`,
    );
  }
  if (apiServerCount > cores) {
    warnings.push(`--api-server-count ${apiServerCount} is more than the ${cores} CPU cores there are.`);
  }
  return warnings;
}
