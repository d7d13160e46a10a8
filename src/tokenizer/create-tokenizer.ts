import { LoadError } from '../loader/load-error.ts';
import { logger } from '../logging/logger.ts';
import type { Tokenizer } from './tokenizer.ts';
import { readTokenizerFiles, type TokenizerFiles } from './tokenizer-files.ts';

export const TOKENIZER_MODES = ['auto', 'native', 'js'] as const;
export type TokenizerMode = (typeof TOKENIZER_MODES)[number];

const log = logger('tokenizer');

/**
 * The tokenizer of a model folder. `auto` takes the JavaScript library and, only where that cannot read the folder's tokenizer.json,
 * the native one: on one thread the two encode about equally fast, and the former starts sooner.
 *
 * @throws LoadError that names the folder; without tokenizer.json it points to `--skip-tokenizer-init`
 */
export async function createTokenizer(folder: string, options: { mode: TokenizerMode }): Promise<Tokenizer> {
  const files = readTokenizerFiles(folder);
  switch (options.mode) {
    case 'js':
      return createJs(files);
    case 'native':
      return createNative(files);
    case 'auto':
      try {
        return await createJs(files);
      } catch (error) {
        log.debug('the JavaScript tokenizer cannot read this tokenizer.json', { folder, error });
        return createNative(files);
      }
  }
}

async function createJs(files: TokenizerFiles): Promise<Tokenizer> {
  const { JsTokenizer } = await import('./js.ts');
  try {
    return new JsTokenizer(files);
  } catch (error) {
    throw unreadable(files, error);
  }
}

async function createNative(files: TokenizerFiles): Promise<Tokenizer> {
  const { loadNativeLibrary, NativeTokenizer } = await import('./native.ts');
  const library = await loadNativeLibrary().catch((error: Error) => {
    throw new LoadError(
      `--tokenizer-mode native: the "tokenizers" addon does not load on ${process.platform}-${process.arch} (${error.message}); use --tokenizer-mode js.`,
      { cause: error },
    );
  });
  try {
    return new NativeTokenizer(files, library);
  } catch (error) {
    throw unreadable(files, error);
  }
}

function unreadable(files: TokenizerFiles, error: unknown): LoadError {
  const reason = error instanceof Error ? error.message : String(error);
  return new LoadError(`${files.folder}/tokenizer.json can't be used: ${reason}`, { cause: error });
}
