import { statSync } from 'node:fs';
import { join } from 'node:path';
import { LoadError } from '../loader/load-error.ts';
import { findLocalFolder } from '../loader/model-folder.ts';
import { openSafetensorsFiles } from '../loader/safetensors.ts';
import type { WeightSource } from '../loader/weight-source.ts';
import { CONFIG_FILE } from './peft-config.ts';

const WEIGHTS_FILE = 'adapter_model.safetensors';
/** The same in Python's own format, which can run code when it is read. */
const PICKLE_FILE = 'adapter_model.bin';

/** The folder of a path or of an embedded adapter (`demo-pirate`); null where there is no adapter. */
export function findAdapterFolder(path: string): string | null {
  try {
    const folder = findLocalFolder(path);
    return folder !== null && isFile(join(folder, CONFIG_FILE)) ? folder : null;
  } catch (error) {
    // What can be no path (too long, with a zero in it) is none.
    if (error instanceof LoadError || (error as NodeJS.ErrnoException).code !== undefined) return null;
    throw error;
  }
}

/** Throws LoadError that names the file. */
export function openAdapterWeights(folder: string): WeightSource {
  const path = join(folder, WEIGHTS_FILE);
  if (isFile(path)) return openSafetensorsFiles([path]);
  const hint = isFile(join(folder, PICKLE_FILE)) ? ` ${PICKLE_FILE} is not read: save it as safetensors.` : '';
  throw new LoadError(`${folder}: ${WEIGHTS_FILE} is missing.${hint}`);
}

/** A pipe would be waited for. */
function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}
