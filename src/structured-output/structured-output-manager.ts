import type { Request } from '../scheduler/request.ts';
import type { RequestUpdate } from '../scheduler/scheduler-interface.ts';
import type { GrammarBitmask, SchedulerOutput } from '../scheduler/scheduler-output.ts';
import { backendOf, type GrammarBackendName } from './create-backend.ts';
import type { Grammar, GrammarBackend, GrammarMatcher } from './grammar.ts';

interface Constraint {
  request: Request;
  backend: GrammarBackend;
  grammar: Grammar;
  /** null until the grammar is compiled. */
  matcher: GrammarMatcher | null;
  /** False while the tokens of `startsAfter` have not come. */
  started: boolean;
  /** Nothing but the end may follow. */
  complete: boolean;
  /** Its mask could not be computed: the grammar has become too complex for the engine's limits. */
  broken: boolean;
}

/** Requests whose grammar is compiled, and those whose grammar can't be, with the reason. */
export interface AdmittedRequests {
  ready: Request[];
  failed: { request: Request; reason: string }[];
}

/**
 * ended: the text was complete before, so the token stands for its end. refused: a token came that the grammar does not have (the request's other
 * rules left no other), or the mask could not be computed.
 */
export type Advance = 'going-on' | 'ended' | 'refused';

/**
 * The core's side of structured output: grammars of requests that wait for them, matchers of those that run, masks of a step.
 * A matcher stands behind the tokens that its request has; a preemption changes neither.
 */
export class StructuredOutputManager {
  private readonly constraints = new Map<number, Constraint>();
  private readonly waiting = new Set<number>();
  private readonly backends = new Map<GrammarBackendName, GrammarBackend>();

  /** @param openBackend called at the first request with a constraint of its kind; may throw */
  constructor(private readonly openBackend: (name: GrammarBackendName) => GrammarBackend) {}

  /** Requests that wait for their grammars. */
  get numWaiting(): number {
    return this.waiting.size;
  }

  waitingRequests(): Request[] {
    return [...this.waiting].map((key) => this.constraints.get(key)!.request);
  }

  /** Takes a request with `structuredOutputs` in; `admit` gives it back when its grammar is there. Throws Error where there is no engine for it. */
  add(request: Request): void {
    const params = request.samplingParams.structuredOutputs!;
    const backend = this.backend(backendOf(params));
    const grammar = backend.compile(params);
    this.constraints.set(request.key, {
      request,
      backend,
      grammar,
      matcher: null,
      started: params.startsAfter === null,
      complete: false,
      broken: false,
    });
    this.waiting.add(request.key);
  }

  /** What has come out of compiling since the last call. Failed requests are forgotten. */
  admit(): AdmittedRequests {
    const admitted: AdmittedRequests = { ready: [], failed: [] };
    for (const key of this.waiting) {
      const constraint = this.constraints.get(key)!;
      const { grammar, request } = constraint;
      const { status } = grammar;
      if (status === 'compiling') continue;
      this.waiting.delete(key);
      if (status === 'ready') {
        constraint.matcher = grammar.createMatcher();
        admitted.ready.push(request);
      } else {
        admitted.failed.push({ request, reason: grammar.message() });
        this.release(key);
      }
    }
    return admitted;
  }

  /** Masks of the rows that will sample under a constraint; null when there are none. */
  bitmask(scheduled: SchedulerOutput): GrammarBitmask | null {
    if (this.constraints.size === this.waiting.size) return null;
    const sampling: Constraint[] = [];
    for (const { key, numComputedTokens, numScheduledTokens } of [
      ...scheduled.cachedRequests,
      ...scheduled.newRequests,
    ]) {
      const constraint = this.constraints.get(key);
      if (constraint === undefined || !constraint.started || constraint.broken) continue;
      if (numComputedTokens + numScheduledTokens >= constraint.request.numTokens) sampling.push(constraint);
    }
    return sampling.length === 0 ? null : this.fill(sampling);
  }

  /** Advances over the tokens that a request got. */
  advance({ request, newTokenIds }: RequestUpdate): Advance {
    const constraint = this.constraints.get(request.key)!;
    if (constraint.broken) return 'refused';
    if (constraint.complete) return 'ended';
    for (let i = 0; i < newTokenIds.length; i++) {
      if (!constraint.started) {
        constraint.started = endsWith(request, newTokenIds.length - 1 - i);
        continue;
      }
      const result = constraint.matcher!.accept(newTokenIds[i]!);
      if (result === 'refused') return 'refused';
      constraint.complete = result === 'complete';
    }
    return 'going-on';
  }

  /** Frees what a request holds; unknown keys are ignored. */
  release(key: number): void {
    const constraint = this.constraints.get(key);
    if (constraint === undefined) return;
    this.constraints.delete(key);
    this.waiting.delete(key);
    constraint.matcher?.free();
    constraint.grammar.free();
  }

  close(): void {
    for (const backend of this.backends.values()) backend.close?.();
  }

  private backend(name: GrammarBackendName): GrammarBackend {
    const backend = this.backends.get(name) ?? this.openBackend(name);
    this.backends.set(name, backend);
    return backend;
  }

  private fill(sampling: readonly Constraint[]): GrammarBitmask {
    const byBackend = [...this.backends.values()].map((each) => sampling.filter(({ backend }) => backend === each));
    const { maskWords } = sampling[0]!.backend;
    const words = new Int32Array(sampling.length * maskWords);
    let row = 0;
    for (const constraints of byBackend) {
      fillOf(constraints, words.subarray(row * maskWords));
      row += constraints.length;
    }
    const keys = byBackend.flat().map(({ request }) => request.key);
    return { keys, wordsPerRow: maskWords, words };
  }
}

/** Masks of constraints of one backend. One that can't be made allows everything: its request ends with the next token. */
function fillOf(constraints: readonly Constraint[], words: Int32Array): void {
  for (let done = 0; done < constraints.length; ) {
    const { backend } = constraints[done]!;
    const { maskWords } = backend;
    const rest = constraints.slice(done).map(({ matcher }) => matcher!);
    done += backend.fillMasks(rest, words.subarray(done * maskWords));
    if (done === constraints.length) break;
    constraints[done]!.broken = true;
    words.fill(-1, done * maskWords, (done + 1) * maskWords);
    done++;
  }
}

/** Whether the output, less its last `less` tokens, ends with the tokens behind which the constraint begins. */
function endsWith(request: Request, less: number): boolean {
  const marker = request.samplingParams.structuredOutputs!.startsAfter!;
  const output = request.tokenIds.subarray(request.numPromptTokens, request.numTokens - less);
  if (output.length < marker.length) return false;
  return marker.every((id, i) => output[output.length - marker.length + i] === id);
}
