import { UsageError } from './config-error.ts';
import { LONGEST_TIMER_S } from './longest-timer.ts';

/** What only an environment variable sets, as in vLLM: seconds, or nothing but 1. */
export const ENGINE_VARIABLES = {
  BAO_ENGINE_READY_TIMEOUT_S: { default: 600, help: 'Longest that an engine core may take to load its model.' },
  BAO_ENGINE_STEP_TIMEOUT_S: {
    default: 300,
    help: "Longest that a core's loop may stand still; then running requests fail, /health says why, and the server ends.",
  },
  BAO_ENGINE_PROGRESS_TIMEOUT_S: { default: 300, help: 'The same for running requests that get no token.' },
  BAO_KEEP_ALIVE_ON_ENGINE_DEATH: {
    default: null,
    help: '1: the server stays when its engine has failed, to tell /health and /metrics until somebody ends it.',
  },
} as const;

type Variable = keyof typeof ENGINE_VARIABLES;
type Environment = Readonly<Record<string, string | undefined>>;

/** Seconds that the operator set, or the default, in milliseconds. Throws UsageError for what is no time. */
export function engineTimeoutMs(
  name: Exclude<Variable, 'BAO_KEEP_ALIVE_ON_ENGINE_DEATH'>,
  environment: Environment = process.env,
): number {
  const text = environment[name] ?? '';
  if (text === '') return ENGINE_VARIABLES[name].default * 1000;
  const seconds = Number(text);
  if (!(seconds > 0 && seconds <= LONGEST_TIMER_S)) {
    throw new UsageError(`${name} takes a number of seconds above 0, at most ${LONGEST_TIMER_S}, not "${text}".`);
  }
  return seconds * 1000;
}

export function keepsAliveOnEngineDeath(environment: Environment = process.env): boolean {
  return environment.BAO_KEEP_ALIVE_ON_ENGINE_DEATH === '1';
}
