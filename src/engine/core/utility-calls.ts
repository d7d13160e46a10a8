import type { Executor } from '../../executor/executor.ts';
import { logger } from '../../logging/logger.ts';
import { LoRALoadError } from '../../lora/lora-error.ts';
import type { LoRARequest } from '../../lora/lora-request.ts';
import type { SchedulerInterface } from '../../scheduler/scheduler-interface.ts';
import type { SchedulerStats, SleepLevel, SleepMode, UtilityCall, UtilityResult, WakeTag } from '../messages.ts';
import type { Reply, SleepControl } from './sleep-control.ts';

const log = logger('core');

/** What a client may ask of a core besides requests. */
export class UtilityCalls {
  constructor(
    private readonly executor: Pick<Executor, 'addLora' | 'removeLora'>,
    private readonly scheduler: SchedulerInterface,
    private readonly sleepControl: SleepControl,
    private readonly core: { stats(): SchedulerStats; stop(): void },
  ) {}

  /** Answers a call: at once, or when the busy loop has carried it out. What it throws is its caller's to hear of. */
  answer(call: UtilityCall, reply: (result: UtilityResult) => void): void {
    const send = (error: string | null, result: unknown) =>
      reply({ callId: call.callId, error, resultJson: JSON.stringify(result) });
    try {
      const args = JSON.parse(call.argsJson) as unknown[];
      if (this.startSlow(call.method, args, (error) => send(error, null))) return;
      send(null, this.utility(call.method, args));
    } catch (thrown) {
      send(thrown instanceof Error ? thrown.message : String(thrown), null);
    }
  }

  /** Calls that are answered when the busy loop has carried them out; false for any other. */
  private startSlow(method: string, args: readonly unknown[], reply: Reply): boolean {
    if (method === 'sleep') this.sleepControl.sleep(args[0] as SleepLevel, args[1] as SleepMode, reply);
    else if (method === 'wakeUp') this.sleepControl.wakeUp(args[0] as WakeTag[], reply);
    else return false;
    return true;
  }

  private utility(method: string, args: readonly unknown[]): unknown {
    switch (method) {
      case 'resetPrefixCache':
        return this.scheduler.resetPrefixCache(args[0] === true);
      case 'isSleeping':
        return this.sleepControl.level !== null;
      case 'stats':
        return this.core.stats();
      case 'addLora':
        return this.addLora(args[0] as LoRARequest);
      case 'removeLora':
        this.executor.removeLora(args[0] as number);
        return null;
      case 'shutdown':
        log.debug('Asked to stop');
        this.core.stop();
        return null;
      default:
        throw new Error(`Unknown utility call ${method}`);
    }
  }

  /** What is wrong with the adapter; null: it is loaded. */
  private addLora(request: LoRARequest): string | null {
    try {
      this.executor.addLora(request);
      return null;
    } catch (error) {
      if (error instanceof LoRALoadError) return error.message;
      throw error;
    }
  }
}
