import type { JinjaTemplate } from './sandboxed-jinja.ts';

/** How a template sees a message's content: one string, or the list of parts of the OpenAI API. */
export type ContentFormat = 'string' | 'openai';

/** The parts of the library's syntax tree that are looked at here. */
interface Node {
  type: string;
  value?: unknown;
  body?: Node[];
  alternate?: Node[];
  defaultBlock?: Node[];
  loopvar?: Node;
  iterable?: Node;
  assignee?: Node;
  lhs?: Node;
  operand?: Node;
  object?: Node;
  property?: Node;
  computed?: boolean;
}

/**
 * `openai` when the template loops over a message's content (`for part in message['content']`), which only a list makes sense for; else `string`.
 * The same rule as vLLM's `--chat-template-content-format auto`.
 */
export function detectContentFormat(template: JinjaTemplate): ContentFormat {
  const statements = [...allStatements((template.program as unknown as Node).body ?? [])];
  const messageLists = aliases(statements, new Set(['messages']), () => false, false);
  const messages = aliases(
    statements,
    new Set(['message']),
    (node) => isElementOf(node, messageLists),
    true,
    messageLists,
  );
  const isContent = (node: Node) => isContentOf(node, messages, messageLists);
  const contents = aliases(statements, new Set(), isContent, false);
  const loopsOverContent = statements.some((node) => {
    if (node.type !== 'For') return false;
    const iterable = unwrap(node.iterable);
    return iterable !== undefined && (isContent(iterable) || isName(iterable, contents));
  });
  return loopsOverContent ? 'openai' : 'string';
}

/** Names that are bound to a node that `matches`, or to another such name; with `byLoop` also the loop variables over `lists`. */
function aliases(
  statements: Node[],
  known: Set<string>,
  matches: (node: Node) => boolean,
  byLoop: boolean,
  lists: ReadonlySet<string> = new Set(),
): Set<string> {
  const names = new Set(known);
  for (let before = -1; before !== names.size; ) {
    before = names.size;
    for (const node of statements) {
      if (node.type === 'Set' && node.assignee?.type === 'Identifier') {
        const value = unwrap(node.value as Node | undefined);
        if (value !== undefined && (isName(value, names) || matches(value))) names.add(node.assignee.value as string);
      }
      const loopName = node.type === 'For' && node.loopvar?.type === 'Identifier' ? node.loopvar.value : undefined;
      const iterable = unwrap(node.iterable);
      if (byLoop && loopName !== undefined && iterable !== undefined && isName(iterable, lists))
        names.add(loopName as string);
    }
  }
  return names;
}

function* allStatements(nodes: Node[]): Generator<Node> {
  for (const node of nodes) {
    yield node;
    yield* allStatements(node.body ?? []);
    yield* allStatements(node.alternate ?? []);
    yield* allStatements(node.defaultBlock ?? []);
  }
}

/** Without filters (`content | list`), selections (`x if …`) and slices (`messages[1:]`). */
function unwrap(node: Node | undefined): Node | undefined {
  if (node?.type === 'SelectExpression') return unwrap(node.lhs);
  if (node?.type === 'FilterExpression') return unwrap(node.operand);
  if (node?.type === 'MemberExpression' && node.property?.type === 'SliceExpression') return unwrap(node.object);
  return node;
}

function isName(node: Node, names: ReadonlySet<string>): boolean {
  return node.type === 'Identifier' && names.has(node.value as string);
}

/** `messages[0]` */
function isElementOf(node: Node, lists: ReadonlySet<string>): boolean {
  if (node.type !== 'MemberExpression' || !node.computed || node.property?.type === 'SliceExpression') return false;
  const object = unwrap(node.object);
  return object !== undefined && isName(object, lists);
}

/** `message.content`, `message['content']`, `messages[0].content` */
function isContentOf(node: Node, messages: ReadonlySet<string>, lists: ReadonlySet<string>): boolean {
  if (node.type !== 'MemberExpression' || node.object === undefined) return false;
  const wanted = node.computed ? 'StringLiteral' : 'Identifier';
  if (node.property?.type !== wanted || node.property.value !== 'content') return false;
  return isName(node.object, messages) || isElementOf(node.object, lists);
}
