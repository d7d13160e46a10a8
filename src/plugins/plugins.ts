import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Hono } from 'hono';
import { ConfigError } from '../config/config-error.ts';
import type { ExecutorFactory } from '../executor/executor.ts';
import { registerExecutor } from '../executor/registry.ts';
import type { LinearMethod } from '../layers/linear-method.ts';
import { type LoadFormat, registerLoadFormat } from '../loader/open-weights.ts';
import { logger } from '../logging/logger.ts';
import type { ModelFactory } from '../models/model-context.ts';
import { registerModel } from '../models/registry.ts';
import type { ReasoningFormat } from '../parsers/reasoning/reasoning-parser.ts';
import { registerReasoningParser } from '../parsers/reasoning/registry.ts';
import { registerToolParser } from '../parsers/tools/registry.ts';
import type { ToolFormat } from '../parsers/tools/tool-parser.ts';
import { registerQuantization } from '../quantization/registry.ts';
import { type LogitsProcessor, logitsProcessors } from '../sampling/logits-processor.ts';

const log = logger('plugins');

const KEYWORD = 'bao-plugin';

/** What a plugin's `register` may add to. Every thread of the server calls it once: the main thread, each engine core, each API server. */
export interface PluginContext {
  /** A model class for an architecture name of config.json. */
  registerModel(architecture: string, factory: ModelFactory): void;
  /** A `--load-format`. */
  registerLoadFormat(name: string, open: LoadFormat): void;
  /** A `--quantization`: how linear layers keep their weights. */
  registerQuantization(name: string, method: LinearMethod): void;
  /** A `--distributed-executor-backend`. */
  registerExecutor(name: string, factory: ExecutorFactory): void;
  /** A `--tool-call-parser`. */
  registerToolParser(name: string, format: ToolFormat): void;
  /** A `--reasoning-parser`. */
  registerReasoningParser(name: string, format: ReasoningFormat): void;
  /** Changes the logits that tokens are drawn from, for requests with certain members of `vllm_xargs` or for all; applied in every core. */
  registerLogitsProcessor(name: string, processor: LogitsProcessor): void;
  /** Adds routes to the HTTP server's app, after the server's own. */
  registerRoutes(addRoutes: (app: Hono) => void): void;
}

/** The default export of a plugin module. */
export interface BaoPlugin {
  name: string;
  register(context: PluginContext): void | Promise<void>;
}

const routes: ((app: Hono) => void)[] = [];
const loaded = new Set<string>();

/** Adds the plugins' routes to an app. */
export function addPluginRoutes(app: Hono): void {
  for (const addRoutes of routes) addRoutes(app);
}

/**
 * Loads the modules named by `--plugin` (a path, or a package) and those of installed packages with the keyword "bao-plugin", once per thread.
 * Throws a ConfigError for a name that leads nowhere, an Error that names the plugin that can't be loaded.
 */
export async function loadPlugins(named: readonly string[], folder = process.cwd()): Promise<void> {
  for (const specifier of [...named, ...installedPlugins(folder)]) {
    const url = resolvePlugin(specifier, folder);
    if (loaded.has(url)) continue;
    loaded.add(url);
    await loadPlugin(specifier, url);
  }
}

async function loadPlugin(specifier: string, url: string): Promise<void> {
  try {
    const module = (await import(url)) as { default?: Partial<BaoPlugin> };
    const plugin = module.default;
    if (typeof plugin?.name !== 'string' || typeof plugin.register !== 'function') {
      throw new Error('its default export is not { name, register(context) }');
    }
    await plugin.register({
      registerModel,
      registerLoadFormat,
      registerQuantization,
      registerExecutor,
      registerToolParser,
      registerReasoningParser,
      registerLogitsProcessor: (name, processor) => logitsProcessors.register(name, processor),
      registerRoutes: (addRoutes) => routes.push(addRoutes),
    });
    log.info(`Loaded plugin ${plugin.name}`);
  } catch (error) {
    throw new Error(`Plugin ${specifier} can't be loaded: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
}

function resolvePlugin(specifier: string, folder: string): string {
  const path = resolve(folder, specifier);
  if (existsSync(path)) return pathToFileURL(path).href;
  try {
    return pathToFileURL(createRequire(join(folder, 'package.json')).resolve(specifier)).href;
  } catch {
    throw new ConfigError(`--plugin: ${specifier} is neither a file nor an installed package.`);
  }
}

/** Names of the packages among the folder's direct dependencies that call themselves plugins. */
function installedPlugins(folder: string): string[] {
  const manifest = readManifest(join(folder, 'package.json'));
  return Object.keys({ ...manifest?.dependencies, ...manifest?.optionalDependencies }).filter((name) =>
    readManifest(join(folder, 'node_modules', name, 'package.json'))?.keywords?.includes(KEYWORD),
  );
}

interface Manifest {
  keywords?: string[];
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

/** null where there is none. Throws ConfigError for one that is no JSON. */
function readManifest(path: string): Manifest | null {
  if (!existsSync(path)) return null;
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Manifest;
  } catch (error) {
    throw new ConfigError(`${path} is not valid JSON: ${(error as Error).message}.`);
  }
}
