import type { NativeFunction } from './cpu-library.ts';
import { KernelError, type Ops } from './device.ts';
import { type ArgType, ERROR_TEXT, OPS, type OpSpec } from './ops.ts';

/** Finds the bytes that may be read or written from an address on; 0 where the device does not own it. */
export type BytesFrom = (address: number) => number;

/** Throws the KernelError of a call that was refused with `code`. */
export function refuse(
  op: string,
  code: number,
  args: Readonly<Record<string, number>>,
  text: string | undefined = ERROR_TEXT[code],
): never {
  const values = Object.entries(args).map(([name, value]) => `${name}=${value}`);
  throw new KernelError(op, code, `${op}: ${text ?? `error ${code}`} (${values.join(', ')})`);
}

type Call = (...args: number[]) => void;
/** What a code that is not 0 means. */
type ErrorText = (code: number) => string | undefined;

/** Makes the call of one op. Its arity is fixed, so that a call allocates nothing. */
function bindOp(native: NativeFunction, stream: number, op: string, spec: OpSpec, textOf: ErrorText): Call {
  const names = Object.keys(spec.args);
  const fail = (code: number, values: number[]) =>
    refuse(op, code, Object.fromEntries(names.map((name, i) => [name, values[i]!])), textOf(code));
  const make = new Function(
    'native',
    'stream',
    'fail',
    `return function ${op}(${names.join(', ')}) {
      const code = native(stream, ${names.join(', ')});
      if (code !== 0) fail(code, [${names.join(', ')}]);
    };`,
  );
  return make(native, stream, fail);
}

/** The kernel table over a library's functions, with the stream bound. */
export function bindOps(
  functions: Readonly<Record<string, NativeFunction>>,
  stream: number,
  textOf: ErrorText = (code) => ERROR_TEXT[code],
): Ops {
  const bound = Object.entries(OPS).map(([op, spec]) => [op, bindOp(functions[op]!, stream, op, spec, textOf)]);
  return Object.fromEntries(bound) as Ops;
}

/** Why a value can't be an argument of that type; undefined where it can. */
function objection(type: ArgType, value: unknown, bytesFrom: BytesFrom): string | undefined {
  if (typeof value !== 'number' || Number.isNaN(value)) return 'not a number';
  if (type === 'f32') return undefined;
  if (!Number.isSafeInteger(value)) return 'not an integer';
  if (type === 'i32') return (value | 0) === value ? undefined : 'beyond 32 bits';
  if (type === 'i64' || (type === 'ptr?' && value === 0)) return undefined;
  if (value === 0) return 'a null pointer';
  return bytesFrom(value) > 0 ? undefined : 'not an address of this device';
}

/** Checks every argument of every call before it is made: its kind, and that a pointer lies in memory of the device. */
export function checkedOps(ops: Ops, bytesFrom: BytesFrom): Ops {
  const checked = Object.entries(OPS).map(([op, spec]: [string, OpSpec]) => {
    const types = Object.entries(spec.args);
    const call = ops[op as keyof Ops];
    const checkedCall: Call = (...args) => {
      if (args.length !== types.length) throw new TypeError(`${op}: ${args.length} arguments, not ${types.length}`);
      types.forEach(([name, type], i) => {
        const why = objection(type, args[i], bytesFrom);
        if (why) throw new TypeError(`${op}: ${name} is ${String(args[i])}, ${why}`);
      });
      call(...args);
    };
    return [op, checkedCall];
  });
  return Object.fromEntries(checked) as Ops;
}
