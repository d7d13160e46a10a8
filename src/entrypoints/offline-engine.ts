import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { BaoConfig } from '../config/bao-config.ts';
import type { EngineArgs } from '../config/engine-args.ts';
import { AsyncLLM, loadPreprocessing } from '../engine/async-llm.ts';
import type { PoolingRequestOutput, RequestOutput } from '../engine/engine-client.ts';
import { EngineWatch, watchOptionsFromEnv } from '../engine/engine-watch.ts';
import { type CoreEngines, launchCoreEngines, withCoreResults } from '../engine/launch-core-engines.ts';
import { configureLogging } from '../logging/logger.ts';
import type { LoRARequest } from '../lora/lora-request.ts';
import { ServedAdapters } from '../lora/served-adapters.ts';
import { loadPlugins } from '../plugins/plugins.ts';
import type { PoolingParams } from '../pooling/pooling-params.ts';
import type { SamplingParams } from '../sampling/sampling-params.ts';

const CORE_STOP_TIMEOUT_MS = 5000;

/** One prompt with how to go on from it. */
export interface OfflineRequest {
  promptTokenIds: Int32Array;
  params: SamplingParams;
  /** Absent or null: the base model. */
  lora?: LoRARequest | null;
}

/** One prompt with how to pool it. */
export interface OfflinePoolingRequest {
  promptTokenIds: Int32Array;
  pooling: PoolingParams;
  /** Absent or null: the base model. */
  lora?: LoRARequest | null;
}

/** The engine without HTTP, in the process of its caller: the cores are the same Workers that a server has. */
export class OfflineEngine {
  private numBatches = 0;

  private constructor(
    /** As the cores resolved it. */
    readonly config: BaoConfig,
    /** For what `generate` has no word for: tokenizer, chat template, statistics. */
    readonly client: AsyncLLM,
    readonly adapters: ServedAdapters,
    private readonly engines: CoreEngines,
    private readonly watch: EngineWatch,
  ) {}

  /**
   * Loads the model and waits until the cores are ready. A folder without a tokenizer means `--skip-tokenizer-init`.
   *
   * @throws ConfigError, LoadError, CoreStartupError, as `bao serve` does
   */
  static async start(engineArgs: EngineArgs): Promise<OfflineEngine> {
    configureLogging({ level: engineArgs.values.logLevel, format: engineArgs.values.logFormat });
    const asGiven = withoutMissingTokenizer(await engineArgs.createEngineConfig({}, 'llm-class'));
    await loadPlugins(asGiven.plugins.plugin);
    const launched = launchCoreEngines(asGiven, 1);
    const preprocessing = await loadPreprocessing(asGiven).catch((error) => abandon(launched, error));
    const engines = await launched;
    const config = withCoreResults(asGiven, engines);
    const client = new AsyncLLM(config, engines.links[0]!, preprocessing);
    const watch = new EngineWatch(engines.cores, watchOptionsFromEnv(), (reason) => client.markDead(reason));
    watch.start();
    return new OfflineEngine(config, client, new ServedAdapters(client, config), engines, watch);
  }

  /**
   * Runs requests together and gives their last outputs, in the requests' order. Throws ValidationError for the first request that the model
   * can't take, and EngineDeadError; the other requests are aborted then.
   *
   * @param onOutput hears of every output as it comes, with the request's index
   */
  async generate(
    requests: readonly OfflineRequest[],
    onOutput: (index: number, output: RequestOutput) => void = () => {},
  ): Promise<RequestOutput[]> {
    return this.runAll(requests, (requestId, request, index, finish) => {
      this.client.addRequest(
        { requestId, ...request },
        {
          onOutput: (output) => {
            onOutput(index, output);
            if (output.finished) finish.resolve(output);
          },
          onError: finish.reject,
        },
      );
    });
  }

  /** The same for requests that are pooled. */
  async pool(
    requests: readonly OfflinePoolingRequest[],
    onOutput: () => void = () => {},
  ): Promise<PoolingRequestOutput[]> {
    return this.runAll(requests, (requestId, request, _, finish) => {
      this.client.addPoolingRequest(
        { requestId, ...request },
        {
          onOutput: (output) => {
            onOutput();
            finish.resolve(output);
          },
          onError: finish.reject,
        },
      );
    });
  }

  private async runAll<Request, Output>(
    requests: readonly Request[],
    add: (requestId: string, request: Request, index: number, finish: PromiseWithResolvers<Output>) => void,
  ): Promise<Output[]> {
    const batch = this.numBatches++;
    const idOf = (index: number) => `offline-${batch}-${index}`;
    const finished = requests.map(() => Promise.withResolvers<Output>());
    const all = Promise.all(finished.map(({ promise }) => promise));
    try {
      requests.forEach((request, index) => {
        add(idOf(index), request, index, finished[index]!);
      });
      return await all;
    } catch (error) {
      requests.forEach((_, index) => {
        this.client.abort(idOf(index));
      });
      throw error;
    }
  }

  /** Stops the cores and frees what they hold. */
  async close(): Promise<void> {
    this.watch.stop();
    const stopped = this.client.shutdownCores().then(() => Promise.all(this.engines.cores.map((core) => core.ended)));
    const deadline = Promise.withResolvers<void>();
    const timer = setTimeout(deadline.resolve, CORE_STOP_TIMEOUT_MS);
    await Promise.race([stopped, deadline.promise]);
    clearTimeout(timer);
    this.client.close();
    // A Worker that has ended still keeps the process.
    for (const core of this.engines.cores) core.terminate();
  }
}

/** Cores must not outlive a start that fails beside them. */
async function abandon(launched: Promise<CoreEngines>, error: unknown): Promise<never> {
  const engines = await launched.catch(() => null);
  for (const core of engines?.cores ?? []) core.terminate();
  throw error;
}

function withoutMissingTokenizer(config: BaoConfig): BaoConfig {
  const { tokenizerFolder } = config.model;
  if (tokenizerFolder === null || existsSync(join(tokenizerFolder, 'tokenizer.json'))) return config;
  return { ...config, model: { ...config.model, skipTokenizerInit: true, tokenizerFolder: null } };
}
