import type { BaoConfig } from '../../config/bao-config.ts';
import type { CoreLinkEnd } from '../core-link.ts';

/**
 * Messages of a core's Worker before and after its busy loop. HELLO (the Worker runs) → INIT (configuration, rings) → LIBRARIES (native code is
 * loaded: the next core may load its own) → READY or FAILED. After READY everything goes through the rings, except the end: FAILED or STOPPED.
 */
export type ToCore = {
  type: 'INIT';
  config: BaoConfig;
  coreIndex: number;
  status: SharedArrayBuffer;
  clients: CoreLinkEnd[];
};

export type FromCore =
  | { type: 'HELLO' }
  | { type: 'LIBRARIES' }
  | ({ type: 'READY' } & CoreReady)
  | { type: 'FAILED'; error: string; stack: string }
  | { type: 'STOPPED' };

/** What a core found out about itself. */
export interface CoreReady {
  numGpuBlocks: number;
  blockSize: number;
  /** What fits, with `--max-model-len auto`; else what was configured. */
  maxModelLen: number;
  kvCacheBytes: number;
  /** Requests of full length that fit at once. */
  maxConcurrency: number;
}
