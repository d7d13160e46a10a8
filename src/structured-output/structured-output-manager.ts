import type { Request } from '../scheduler/request.ts';
import type { RequestUpdate } from '../scheduler/scheduler-interface.ts';
import type { GrammarBitmask, SchedulerOutput } from '../scheduler/scheduler-output.ts';
import { backendOf, type GrammarBackendName } from './create-backend.ts';
import type { Grammar, GrammarBackend, GrammarMatcher } from './grammar.ts';

/** What a step waits for masks that are not ready: most take microseconds. A mask is waited for once, then its request stays out of steps. */
const MASK_BUDGET_MS = 2;
const TOO_COMPLEX = 'the grammar is too complex';

interface Constraint {
  request: Request;
  backend: GrammarBackend;
  grammar: Grammar;
  /** null until the grammar is compiled. */
  matcher: GrammarMatcher | null;
  /** False while the tokens of `startsAfter` have not come. */
  started: boolean;
  /** A step has waited for what its matcher is at. */
  waitedFor: boolean;
}

/** Requests whose grammar is compiled, and those whose grammar can't be, with the reason. */
export interface AdmittedRequests {
  ready: Request[];
  failed: { request: Request; reason: string }[];
}

/** How things stand with the masks of requests that have got tokens. */
export interface SettledRequests {
  /** Keys of those whose mask is not ready. */
  held: ReadonlySet<number>;
  /** Those that can't go on: a token came that the grammar does not have (the request's other rules left no other), or there is no mask. */
  deadEnds: Request[];
}

/** ended: the text was complete before, so the tokens stand for its end. */
export type Advance = 'going-on' | 'ended';

/**
 * The core's side of structured output: grammars of requests that wait for them, matchers of those that run, masks of a step.
 * A matcher stands behind the tokens that its request has; a preemption changes neither. Its mask is made while the core does other things.
 */
export class StructuredOutputManager {
  private readonly constraints = new Map<number, Constraint>();
  private readonly waiting = new Set<number>();
  /** Those whose matcher has been given tokens since it was looked at. */
  private readonly advancing = new Set<Constraint>();
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
      waitedFor: false,
    });
    this.waiting.add(request.key);
  }

  /** What has come out of compiling, and of making first masks, since the last call. Failed requests are forgotten. */
  admit(): AdmittedRequests {
    const admitted: AdmittedRequests = { ready: [], failed: [] };
    for (const key of this.waiting) {
      const constraint = this.constraints.get(key)!;
      const { request } = constraint;
      const outcome = outcomeOf(constraint);
      if (outcome === 'pending') continue;
      if (outcome === 'ready') {
        this.waiting.delete(key);
        admitted.ready.push(request);
      } else {
        admitted.failed.push({ request, reason: outcome.failure });
        this.release(key);
      }
    }
    return admitted;
  }

  /**
   * To be asked before each step is scheduled. Waits a little for masks that are not ready.
   *
   * @param isAlone there is one request in all: a mask that takes long holds nobody, so that this thread may make it
   */
  settle(isAlone: boolean): SettledRequests {
    const held = new Set<number>();
    const deadEnds: Request[] = [];
    this.waitForMasks(isAlone);
    for (const constraint of this.advancing) {
      const { matcher, request } = constraint;
      const { status } = matcher!;
      if (status === 'pending') {
        held.add(request.key);
        continue;
      }
      this.advancing.delete(constraint);
      if (status === 'refused') deadEnds.push(request);
    }
    return { held, deadEnds };
  }

  /** Masks of the rows that will sample under a constraint, none of them held; null when there are none. */
  bitmask(scheduled: SchedulerOutput): GrammarBitmask | null {
    if (this.constraints.size === this.waiting.size) return null;
    const sampling: Constraint[] = [];
    for (const { key, numComputedTokens, numScheduledTokens } of [
      ...scheduled.cachedRequests,
      ...scheduled.newRequests,
    ]) {
      const constraint = this.constraints.get(key);
      if (constraint === undefined || !constraint.started) continue;
      if (numComputedTokens + numScheduledTokens >= constraint.request.numTokens) sampling.push(constraint);
    }
    return sampling.length === 0 ? null : this.copyMasks(sampling);
  }

  /** Takes the tokens that a request got, of which a mask has been asked for before, and begins the mask behind them. */
  advance({ request, newTokenIds }: RequestUpdate): Advance {
    const constraint = this.constraints.get(request.key)!;
    const matcher = constraint.matcher!;
    if (matcher.status === 'complete' && constraint.started) return 'ended';
    let numFree = 0;
    while (!constraint.started && numFree < newTokenIds.length) {
      numFree++;
      constraint.started = endsWith(request, newTokenIds.length - numFree);
    }
    if (numFree === newTokenIds.length) return 'going-on';
    matcher.advance(newTokenIds.slice(numFree));
    constraint.waitedFor = false;
    this.advancing.add(constraint);
    return 'going-on';
  }

  /** Frees what a request holds; unknown keys are ignored. */
  release(key: number): void {
    const constraint = this.constraints.get(key);
    if (constraint === undefined) return;
    this.constraints.delete(key);
    this.waiting.delete(key);
    this.advancing.delete(constraint);
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

  private waitForMasks(isAlone: boolean): void {
    const asked = [...this.advancing].filter(({ waitedFor }) => !waitedFor);
    if (asked.length === 0) return;
    if (isAlone) for (const { backend, matcher } of asked) backend.workNow?.(matcher!);
    const deadline = performance.now() + MASK_BUDGET_MS;
    for (const [backend, constraints] of Map.groupBy(asked, backendOfConstraint)) {
      backend.wait(constraints.map(matcherOf), Math.max(0, deadline - performance.now()));
    }
    for (const constraint of asked) constraint.waitedFor = true;
  }

  private copyMasks(sampling: readonly Constraint[]): GrammarBitmask {
    const { maskWords } = sampling[0]!.backend;
    const words = new Int32Array(sampling.length * maskWords);
    const keys: number[] = [];
    for (const [backend, constraints] of Map.groupBy(sampling, backendOfConstraint)) {
      backend.copyMasks(constraints.map(matcherOf), words.subarray(keys.length * maskWords));
      keys.push(...constraints.map(({ request }) => request.key));
    }
    return { keys, wordsPerRow: maskWords, words };
  }
}

/** Of a request that waits: its first mask belongs to its grammar. */
function outcomeOf(constraint: Constraint): 'pending' | 'ready' | { failure: string } {
  const { grammar } = constraint;
  if (constraint.matcher === null) {
    const { status } = grammar;
    if (status === 'failed') return { failure: grammar.message() };
    if (status === 'compiling') return 'pending';
    constraint.matcher = grammar.createMatcher();
  }
  const { status } = constraint.matcher;
  if (status === 'pending') return 'pending';
  return status === 'refused' ? { failure: TOO_COMPLEX } : 'ready';
}

function backendOfConstraint({ backend }: Constraint): GrammarBackend {
  return backend;
}

function matcherOf({ matcher }: Constraint): GrammarMatcher {
  return matcher!;
}

/** Whether the output, less its last `less` tokens, ends with the tokens behind which the constraint begins. */
function endsWith(request: Request, less: number): boolean {
  const marker = request.samplingParams.structuredOutputs!.startsAfter!;
  const output = request.tokenIds.subarray(request.numPromptTokens, request.numTokens - less);
  if (output.length < marker.length) return false;
  return marker.every((id, i) => output[output.length - marker.length + i] === id);
}
