import type { BaoConfig } from '../config/bao-config.ts';
import type { GrammarSpec } from '../sampling/structured-outputs-params.ts';
import type { GrammarBackend } from './grammar.ts';
import { GuidanceBackend } from './guidance-backend.ts';
import { XGrammarBackend } from './xgrammar/xgrammar-backend.ts';
import { isXGrammarSpec } from './xgrammar/xgrammar-spec.ts';

export type GrammarBackendName = 'guidance' | 'xgrammar';

/** The engine that takes a grammar of this kind. */
export function backendOf(spec: GrammarSpec): GrammarBackendName {
  return isXGrammarSpec(spec) ? 'xgrammar' : 'guidance';
}

/** Throws Error where the engine can't be had. */
export function createGrammarBackend(name: GrammarBackendName, config: BaoConfig): GrammarBackend {
  return name === 'xgrammar' ? new XGrammarBackend(config) : new GuidanceBackend(config);
}
