/** The parts of the library's syntax tree that are compiled here. */
export interface TemplateNode {
  type: string;
  value?: unknown;
  body?: TemplateNode[];
  test?: TemplateNode;
  alternate?: TemplateNode[];
  loopvar?: TemplateNode;
  iterable?: TemplateNode;
  defaultBlock?: TemplateNode[];
  assignee?: TemplateNode;
  object?: TemplateNode;
  property?: TemplateNode;
  computed?: boolean;
  operator?: { value: string };
  left?: TemplateNode;
  right?: TemplateNode;
  argument?: TemplateNode;
  operand?: TemplateNode;
  negate?: boolean;
  filter?: TemplateNode;
  condition?: TemplateNode;
  trueExpr?: TemplateNode;
  falseExpr?: TemplateNode;
  start?: TemplateNode;
  stop?: TemplateNode;
  step?: TemplateNode;
}

/** Turns of loops with the nodes they evaluate, and characters that are looked at, in one rendering. With more it is the interpreter's, which looks at the clock. */
const MAX_WORK = 1 << 20;

/** What objects have besides their members, as functions. */
const OBJECT_METHODS = new Set(['get', 'items', 'keys', 'values', 'dictsort']);

/** Thrown by a rendering that comes to what is not compiled. */
const notCompiled = new Error('This part of the template is left to the interpreter.');

/** Variables by name, each set in the innermost scope and looked for from there. */
class Scope {
  readonly variables = new Map<string, unknown>();

  constructor(
    readonly parent: Scope | null,
    readonly rendering: Rendering,
  ) {}
}

interface Rendering {
  variables: Readonly<Record<string, unknown>>;
  maxSize: number;
  workLeft: number;
}

type Evaluate = (scope: Scope) => unknown;

/**
 * A template as functions over plain values: what most templates do with most conversations. It renders exactly what the library's interpreter does, or nothing: unusual syntax,
 * values of unusual types and whatever would be an error are left to the interpreter, which then renders it all. Two to four times as fast.
 */
export class CompiledTemplate {
  readonly #body: Evaluate;
  #numNodes = 0;

  /** @param constants variables that are the same in every rendering, under those of the rendering */
  constructor(
    program: TemplateNode,
    private readonly constants: ReadonlyMap<string, unknown>,
  ) {
    this.#body = this.#block(program.body);
  }

  /** null: the interpreter is needed. */
  render(variables: Readonly<Record<string, unknown>>, maxSize: number): string | null {
    try {
      return this.#body(new Scope(null, { variables, maxSize, workLeft: MAX_WORK })) as string;
    } catch (error) {
      if (error === notCompiled) return null;
      throw error;
    }
  }

  /** Text of statements. */
  #block(nodes: TemplateNode[] = []): Evaluate {
    const parts = nodes.map((node) => this.#compile(node));
    return (scope) => {
      let text = '';
      for (const part of parts) text = added(text, printed(part(scope)), scope);
      return text;
    };
  }

  #compile(node: TemplateNode | undefined): Evaluate {
    this.#numNodes++;
    switch (node?.type) {
      case undefined:
        return () => undefined;
      case 'Comment':
        return () => null;
      case 'StringLiteral':
      case 'IntegerLiteral': {
        const { value } = node;
        return () => value;
      }
      case 'Identifier':
        return this.#variable(node.value as string);
      case 'MemberExpression':
        return this.#member(node);
      case 'If':
        return this.#choice(this.#compile(node.test), this.#block(node.body), this.#block(node.alternate));
      case 'Ternary':
        return this.#choice(this.#compile(node.condition), this.#compile(node.trueExpr), this.#compile(node.falseExpr));
      case 'For':
        return this.#loop(node);
      case 'Set':
        return this.#assignment(node);
      case 'BinaryExpression':
        return this.#binary(node);
      case 'UnaryExpression':
        return this.#unary(node);
      case 'TestExpression':
        return this.#test(node);
      case 'FilterExpression':
        return this.#filter(node);
      default:
        return giveUp;
    }
  }

  #variable(name: string): Evaluate {
    if (name === 'namespace') return giveUp;
    const { constants } = this;
    return (scope) => {
      for (let each: Scope | null = scope; each !== null; each = each.parent) {
        const value = each.variables.get(name);
        if (value !== undefined || each.variables.has(name)) return value;
      }
      const { variables } = scope.rendering;
      return Object.hasOwn(variables, name) ? variables[name] : constants.get(name);
    };
  }

  #member({ object, property, computed }: TemplateNode): Evaluate {
    const owner = this.#compile(object);
    if (property?.type === 'SliceExpression') return computed ? this.#slice(owner, property) : giveUp;
    const key: Evaluate = computed || property?.type !== 'Identifier' ? this.#compile(property) : () => property.value;
    return (scope) => memberOf(owner(scope), key(scope));
  }

  /** From one element of a list to another. */
  #slice(owner: Evaluate, { start, stop, step }: TemplateNode): Evaluate {
    if (step !== undefined) return giveUp;
    const [from, to] = [this.#compile(start), this.#compile(stop)];
    return (scope) => {
      const [list, first, last] = [owner(scope), from(scope), to(scope)];
      if (!Array.isArray(list) || !isIndex(first) || !isIndex(last)) throw notCompiled;
      return list.slice(first, last);
    };
  }

  #choice(condition: Evaluate, then: Evaluate, otherwise: Evaluate): Evaluate {
    return (scope) => (isTrue(condition(scope)) ? then(scope) : otherwise(scope));
  }

  #loop({ loopvar, iterable, body, defaultBlock }: TemplateNode): Evaluate {
    if (loopvar?.type !== 'Identifier' || iterable?.type === 'SelectExpression') return giveUp;
    const name = loopvar.value as string;
    const [listOf, otherwise] = [this.#compile(iterable), this.#block(defaultBlock)];
    const numBefore = this.#numNodes;
    const turn = this.#block(body);
    const numNodes = this.#numNodes - numBefore;
    return (outer) => {
      const scope = new Scope(outer, outer.rendering);
      const list = listOf(scope);
      if (!Array.isArray(list)) throw notCompiled;
      spend(scope, list.length * (1 + numNodes));
      let text = '';
      for (const [i, item] of list.entries()) {
        scope.variables.set('loop', loopState(list, i));
        scope.variables.set(name, item);
        text = added(text, turn(scope) as string, scope);
      }
      return list.length === 0 ? otherwise(scope) : text;
    };
  }

  #assignment({ assignee, value, body }: TemplateNode): Evaluate {
    if (assignee?.type !== 'Identifier') return giveUp;
    const name = assignee.value as string;
    const assigned = value ? this.#compile(value as TemplateNode) : this.#block(body);
    return (scope) => {
      scope.variables.set(name, assigned(scope));
      return null;
    };
  }

  #binary({ operator, left, right }: TemplateNode): Evaluate {
    const [a, b] = [this.#compile(left), this.#compile(right)];
    switch (operator!.value) {
      case 'and':
        return (scope) => {
          const value = a(scope);
          return isTrue(value) ? b(scope) : value;
        };
      case 'or':
        return (scope) => {
          const value = a(scope);
          return isTrue(value) ? value : b(scope);
        };
      case '==':
        return (scope) => areEqual(a(scope), b(scope), scope);
      case '!=':
        return (scope) => !areEqual(a(scope), b(scope), scope);
      case 'in':
        return (scope) => isIn(a(scope), b(scope), scope);
      case 'not in':
        return (scope) => !isIn(a(scope), b(scope), scope);
      case '+':
        return (scope) => {
          const [first, second] = [a(scope), b(scope)];
          if (typeof first === 'string' && typeof second === 'string') return added(first, second, scope);
          return integer(first) + integer(second);
        };
      case '-':
        return (scope) => integer(a(scope)) - integer(b(scope));
      case '%':
        return (scope) => integer(a(scope)) % integer(b(scope));
      case '<':
        return (scope) => integer(a(scope)) < integer(b(scope));
      case '>':
        return (scope) => integer(a(scope)) > integer(b(scope));
      case '<=':
        return (scope) => integer(a(scope)) <= integer(b(scope));
      case '>=':
        return (scope) => integer(a(scope)) >= integer(b(scope));
      default:
        return giveUp;
    }
  }

  #unary({ operator, argument }: TemplateNode): Evaluate {
    const value = this.#compile(argument);
    if (operator!.value === 'not') return (scope) => !isTrue(value(scope));
    return operator!.value === '-' ? (scope) => -integer(value(scope)) : giveUp;
  }

  #test({ operand, negate, test }: TemplateNode): Evaluate {
    const value = this.#compile(operand);
    const holds = TESTS.get(test?.value);
    return holds === undefined ? giveUp : (scope) => holds(value(scope)) !== negate;
  }

  #filter({ operand, filter }: TemplateNode): Evaluate {
    const value = this.#compile(operand);
    if (filter?.type !== 'Identifier') return giveUp;
    if (filter.value === 'trim') return (scope) => looked(value(scope), scope).trim();
    if (filter.value !== 'length') return giveUp;
    return (scope) => {
      const of = value(scope);
      return Array.isArray(of) ? of.length : looked(of, scope).length;
    };
  }
}

const TESTS: ReadonlyMap<unknown, (value: unknown) => boolean> = new Map<unknown, (value: unknown) => boolean>([
  ['defined', (value) => value !== undefined],
  ['undefined', (value) => value === undefined],
  ['none', (value) => value === null],
  ['string', (value) => typeof value === 'string'],
  ['mapping', isMapping],
  ['true', (value) => value === true],
  ['false', (value) => value === false],
]);

function giveUp(): never {
  throw notCompiled;
}

function added(text: string, more: string, { rendering }: Scope): string {
  if (text.length + more.length > rendering.maxSize) throw notCompiled;
  return text + more;
}

function printed(value: unknown): string {
  if (value === null || value === undefined) return '';
  return typeof value === 'string' ? value : String(integer(value));
}

/** A string whose characters are looked at. */
function looked(value: unknown, scope: Scope): string {
  if (typeof value !== 'string') throw notCompiled;
  spend(scope, value.length);
  return value;
}

function spend({ rendering }: Scope, work: number): void {
  rendering.workLeft -= work;
  if (rendering.workLeft < 0) throw notCompiled;
}

function integer(value: unknown): number {
  if (!Number.isSafeInteger(value)) throw notCompiled;
  return value as number;
}

function isIndex(value: unknown): value is number | undefined {
  return value === undefined || Number.isSafeInteger(value);
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Python's truth: empty lists and objects are false. */
function isTrue(value: unknown): boolean {
  if (typeof value === 'function') throw notCompiled;
  if (Array.isArray(value)) return value.length > 0;
  return isMapping(value) ? Object.keys(value).length > 0 : Boolean(value);
}

function areEqual(a: unknown, b: unknown, scope: Scope): boolean {
  if (isComposed(a) || isComposed(b)) throw notCompiled;
  if (typeof a === 'string') spend(scope, a.length);
  // The library's rule, by which 1 equals '1'.
  // biome-ignore lint/suspicious/noDoubleEquals: see above.
  return a == b;
}

function isComposed(value: unknown): boolean {
  return typeof value === 'function' || (typeof value === 'object' && value !== null);
}

function isIn(value: unknown, container: unknown, scope: Scope): boolean {
  if (typeof value !== 'string') throw notCompiled;
  if (typeof container === 'string') return looked(container, scope).includes(value);
  if (Array.isArray(container)) return container.includes(value);
  if (isMapping(container)) return Object.hasOwn(container, value);
  throw notCompiled;
}

function memberOf(owner: unknown, key: unknown): unknown {
  if (Array.isArray(owner) && Number.isSafeInteger(key)) return owner.at(key as number);
  if (typeof key !== 'string') throw notCompiled;
  if (owner === null || owner === undefined) return undefined;
  if (!isMapping(owner)) throw notCompiled;
  if (Object.hasOwn(owner, key)) return owner[key];
  if (OBJECT_METHODS.has(key)) throw notCompiled;
  return undefined;
}

function loopState(list: readonly unknown[], i: number) {
  return {
    index: i + 1,
    index0: i,
    revindex: list.length - i,
    revindex0: list.length - i - 1,
    first: i === 0,
    last: i === list.length - 1,
    length: list.length,
    previtem: list[i - 1],
    nextitem: list[i + 1],
  };
}
