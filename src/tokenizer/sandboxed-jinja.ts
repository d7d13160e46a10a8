import { Environment, Interpreter, parse, tokenize } from '@huggingface/jinja';
import { CompiledTemplate, type TemplateNode } from './compiled-template.ts';

/** What a template may use up: it comes from a model's repository, or from a client where the operator allows it. */
export interface RenderLimits {
  /** Milliseconds of one rendering. */
  timeMs: number;
  /** UTF-16 units of any text and elements of any list on the way. */
  size: number;
}

const DEFAULT_RENDER_LIMITS: RenderLimits = { timeMs: 5000, size: 64 * 1024 * 1024 };

/** Largest source that is compiled: real chat templates have some 10 kB. */
const MAX_SOURCE_LENGTH = 1024 * 1024;
const MAX_RANGE = 100_000;
/** Evaluations between two looks at the clock. */
const CLOCK_INTERVAL = 256;

/** What the template itself refuses (`raise_exception`): its author's message to the client. */
export class TemplateRaisedError extends Error {}

/** A compiled Jinja template in the dialect of chat templates (transformers' `apply_chat_template`). */
export class JinjaTemplate {
  readonly program: ReturnType<typeof parse>;
  readonly #compiled: CompiledTemplate;
  readonly #constants: Environment;

  /**
   * @param constants variables that are the same in every rendering
   * @throws SyntaxError for what is not a template
   */
  constructor(source: string, constants: Readonly<Record<string, string>> = {}) {
    if (source.length > MAX_SOURCE_LENGTH) {
      throw new SyntaxError(`the template has ${source.length} characters, at most ${MAX_SOURCE_LENGTH} are allowed`);
    }
    this.program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
    const names = new Map(Object.entries({ ...GLOBALS, ...constants }));
    this.#compiled = new CompiledTemplate(this.program as unknown as TemplateNode, names);
    this.#constants = environmentOf(constants, GLOBAL_ENVIRONMENT);
  }

  /**
   * Renders within the limits: the clock and the sizes are looked at between evaluations, so that loops, recursion and texts that double end.
   * A single filter runs to its end; what it works on is bounded by the size.
   *
   * @throws TemplateRaisedError, or an Error that says what went wrong
   */
  render(variables: Record<string, unknown>, limits: RenderLimits = DEFAULT_RENDER_LIMITS): string {
    const text = this.#compiled.render(variables, limits.size);
    if (text !== null) return text;
    const environment = environmentOf(variables, this.#constants);
    return String(new LimitedInterpreter(environment, limits).run(this.program).value);
  }
}

/** What a template assigns is its own: it can't reach the environment around it. `namespace` is the library's. */
function environmentOf(variables: Readonly<Record<string, unknown>>, parent?: Environment): Environment {
  const environment = new Environment(parent);
  for (const name of Object.keys(variables)) {
    if (name !== 'namespace') environment.set(name, variables[name]);
  }
  return environment;
}

type Evaluate = Interpreter['evaluate'];

class LimitedInterpreter extends Interpreter {
  readonly #deadline: number;
  #untilClock = CLOCK_INTERVAL;

  constructor(
    environment: Environment,
    private readonly limits: RenderLimits,
  ) {
    super(environment);
    this.#deadline = performance.now() + limits.timeMs;
  }

  override evaluate(statement: Parameters<Evaluate>[0], environment: Parameters<Evaluate>[1]): ReturnType<Evaluate> {
    if (--this.#untilClock === 0) {
      this.#untilClock = CLOCK_INTERVAL;
      if (performance.now() > this.#deadline) throw new Error(`rendering took longer than ${this.limits.timeMs} ms`);
    }
    const result = super.evaluate(statement, environment);
    const value: unknown = result.value;
    if ((typeof value === 'string' || Array.isArray(value)) && value.length > this.limits.size) {
      throw new Error(`a value of ${value.length} elements is more than the ${this.limits.size} allowed`);
    }
    return result;
  }
}

const GLOBALS: Readonly<Record<string, unknown>> = {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
  raise_exception(message: unknown): never {
    throw new TemplateRaisedError(String(message));
  },
  range,
  strftime_now: (format: unknown) => strftime(new Date(), String(format)),
};
const GLOBAL_ENVIRONMENT = environmentOf(GLOBALS);

/** Python's `range`, as a list. */
function range(...bounds: unknown[]): number[] {
  const [start, stop, step] = (bounds.length > 1 ? bounds : [0, ...bounds]).map(Number);
  const stride = step ?? 1;
  if (![start, stop, stride].every(Number.isInteger) || stride === 0) {
    throw new Error(`range(${bounds.join(', ')}): whole numbers are expected, and a step that is not 0`);
  }
  const length = Math.max(0, Math.ceil((stop! - start!) / stride));
  if (length > MAX_RANGE) throw new Error(`range(${bounds.join(', ')}) is longer than the ${MAX_RANGE} allowed`);
  return Array.from({ length }, (_, i) => start! + i * stride);
}

const MONTHS = 'January February March April May June July August September October November December'.split(' ');
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

/** C's strftime in the C locale and local time, for the conversions that make sense in a prompt; others stay as they are. */
export function strftime(date: Date, format: string): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const hour12 = date.getHours() % 12 || 12;
  const dayOfYear = Math.round(
    (Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) - Date.UTC(date.getFullYear(), 0, 0)) / 86_400_000,
  );
  const values: Record<string, string> = {
    Y: String(date.getFullYear()),
    y: two(date.getFullYear() % 100),
    m: two(date.getMonth() + 1),
    B: MONTHS[date.getMonth()]!,
    b: MONTHS[date.getMonth()]!.slice(0, 3),
    d: two(date.getDate()),
    e: String(date.getDate()).padStart(2, ' '),
    j: String(dayOfYear).padStart(3, '0'),
    A: DAYS[date.getDay()]!,
    a: DAYS[date.getDay()]!.slice(0, 3),
    H: two(date.getHours()),
    I: two(hour12),
    M: two(date.getMinutes()),
    S: two(date.getSeconds()),
    p: date.getHours() < 12 ? 'AM' : 'PM',
    F: `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`,
    T: `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`,
    '%': '%',
  };
  // "%-d" is glibc's "without padding".
  return format.replace(/%(-?)([A-Za-z%])/g, (text, minus: string, conversion: string) => {
    const value = values[conversion];
    if (value === undefined) return text;
    return minus === '' ? value : value.replace(/^[0 ]+(?=.)/, '');
  });
}
