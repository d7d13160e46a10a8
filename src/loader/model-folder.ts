import { existsSync, readdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { PACKAGE_ROOT } from '../package-layout.ts';
import type { HubOptions } from './hub.ts';
import { LoadError } from './load-error.ts';

/** The models that come with Bao, beside `src` whatever the working directory is. */
const EMBEDDED_MODELS = join(PACKAGE_ROOT, 'models');

/** `name` or `org/name`, as the Hub allows them. */
const HUB_ID = /^(?:[\w.-]+\/)?[\w.-]+$/;

/**
 * The local folder of a model, downloaded first if need be. In this order:
 * a path (`./x`, `../x`, `/x`, `~/x`), the name of an embedded model (`demo`), an existing folder, a Hub id (`org/name`).
 * So a folder of one's own that has an embedded model's name is reached with `./`.
 *
 * @throws LoadError in one sentence
 */
export async function resolveModelFolder(model: string, options: HubOptions = {}): Promise<string> {
  const local = findLocalFolder(model);
  if (local !== null) return local;
  if (!HUB_ID.test(model) || model.includes('..') || model.includes('--')) {
    throw new LoadError(
      `Model "${model}" is neither a folder nor a Hub id (org/name); embedded models: ${embeddedModels().join(', ')}.`,
    );
  }
  const { downloadModel } = await import('./hub.ts');
  return downloadModel(model, options);
}

/** The folder of a path, an embedded model or an existing folder; null for what may be a Hub id. Throws LoadError for a path that is not a folder, and for a file. */
export function findLocalFolder(model: string): string | null {
  if (model.trim() === '')
    throw new LoadError('The model must be a folder, a Hub id or the name of an embedded model.');
  if (/^(?:\.{1,2}(?:[/\\]|$)|[/\\]|~[/\\]|[A-Za-z]:[/\\])/.test(model)) {
    const path = resolve(model.startsWith('~') ? join(homedir(), model.slice(1)) : model);
    if (isFolder(path)) return path;
    throw existsSync(path) ? isAFile(path) : new LoadError(`${path}: the model folder does not exist.`);
  }
  const embedded = join(EMBEDDED_MODELS, model);
  if (!/[/\\]/.test(model) && isFolder(embedded)) return embedded;
  if (isFolder(model)) return resolve(model);
  if (existsSync(model)) throw isAFile(model);
  return null;
}

function isAFile(path: string): LoadError {
  return new LoadError(
    `${path}: not a folder; a model is one with config.json and *.safetensors${/\.gguf$/i.test(path) ? ', GGUF files are not read' : ''}.`,
  );
}

/** Names of the models that come with Bao. */
export function embeddedModels(): string[] {
  if (!isFolder(EMBEDDED_MODELS)) return [];
  return readdirSync(EMBEDDED_MODELS)
    .filter((name) => existsSync(join(EMBEDDED_MODELS, name, 'config.json')))
    .sort();
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}
