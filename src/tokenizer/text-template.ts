/** A place of a template: special tokens, or the first or second text. */
export type TemplatePiece =
  | { kind: 'special'; ids: readonly number[]; typeId: number }
  | { kind: 'text'; index: 0 | 1; typeId: number };

/** What a tokenizer's post-processor puts around one text, and around two that are read together. */
export interface TextTemplate {
  single: readonly TemplatePiece[];
  pair: readonly TemplatePiece[];
}

/** Token ids with the place where the second text's type begins. */
export interface TemplatedText {
  ids: Int32Array;
  /** Index of the first token of type 1; null: there is none. */
  firstTypeOne: number | null;
}

const text = (index: 0 | 1, typeId: number): TemplatePiece => ({ kind: 'text', index, typeId });
const special = (id: number, typeId = 0): TemplatePiece => ({ kind: 'special', ids: [id], typeId });

/** Nothing around the texts: those of models that are not told where one ends. */
const BARE: TextTemplate = { single: [text(0, 0)], pair: [text(0, 0), text(1, 1)] };

/** The template of a `post_processor` of tokenizer.json; null for one of an unknown form. */
export function textTemplateOf(postProcessor: unknown): TextTemplate | null {
  if (postProcessor === null || postProcessor === undefined) return BARE;
  if (!isObject(postProcessor)) return null;
  switch (postProcessor.type) {
    case 'ByteLevel':
      return BARE;
    case 'BertProcessing':
      return bertTemplate(idOf(postProcessor.cls), idOf(postProcessor.sep));
    case 'RobertaProcessing':
      return robertaTemplate(idOf(postProcessor.cls), idOf(postProcessor.sep));
    case 'TemplateProcessing':
      return templateProcessing(postProcessor);
    case 'Sequence':
      return sequenceTemplate(postProcessor.processors);
    default:
      return null;
  }
}

/** The texts' ids with what goes around them. */
export function applyTemplate(pieces: readonly TemplatePiece[], texts: readonly Int32Array[]): TemplatedText {
  const ids: number[] = [];
  let firstTypeOne: number | null = null;
  for (const piece of pieces) {
    const own = piece.kind === 'special' ? piece.ids : texts[piece.index]!;
    if (piece.typeId === 1 && own.length > 0) firstTypeOne ??= ids.length;
    for (const id of own) ids.push(id);
  }
  return { ids: Int32Array.from(ids), firstTypeOne };
}

/** Tokens that a template adds. */
export function numSpecialTokens(pieces: readonly TemplatePiece[]): number {
  return pieces.reduce((sum, piece) => sum + (piece.kind === 'special' ? piece.ids.length : 0), 0);
}

function bertTemplate(cls: number | null, sep: number | null): TextTemplate | null {
  if (cls === null || sep === null) return null;
  const single = [special(cls), text(0, 0), special(sep)];
  return { single, pair: [...single, text(1, 1), special(sep, 1)] };
}

function robertaTemplate(cls: number | null, sep: number | null): TextTemplate | null {
  if (cls === null || sep === null) return null;
  const single = [special(cls), text(0, 0), special(sep)];
  return { single, pair: [...single, special(sep), text(1, 0), special(sep)] };
}

/** Of several, the one that adds tokens: the others are about spaces. */
function sequenceTemplate(processors: unknown): TextTemplate | null {
  if (!Array.isArray(processors)) return null;
  const templates = processors.map(textTemplateOf);
  if (templates.includes(null)) return null;
  const adding = templates.filter((template) => template !== BARE);
  return adding.length > 1 ? null : (adding[0] ?? BARE);
}

function templateProcessing({ single, pair, special_tokens: tokens }: Record<string, unknown>): TextTemplate | null {
  const known = isObject(tokens) ? tokens : {};
  const [one, two] = [piecesOf(single, known), piecesOf(pair, known)];
  return one === null || two === null ? null : { single: one, pair: two };
}

function piecesOf(list: unknown, tokens: Record<string, unknown>): TemplatePiece[] | null {
  if (!Array.isArray(list)) return null;
  const pieces: TemplatePiece[] = [];
  for (const item of list) {
    const piece = isObject(item) ? pieceOf(item, tokens) : null;
    if (piece === null) return null;
    pieces.push(piece);
  }
  return pieces;
}

function pieceOf(item: Record<string, unknown>, tokens: Record<string, unknown>): TemplatePiece | null {
  if (isObject(item.Sequence)) {
    const { id, type_id: typeId } = item.Sequence;
    return text(id === 'B' ? 1 : 0, Number(typeId ?? 0));
  }
  if (!isObject(item.SpecialToken)) return null;
  const { id, type_id: typeId } = item.SpecialToken;
  const token = tokens[String(id)];
  if (!isObject(token) || !Array.isArray(token.ids)) return null;
  return { kind: 'special', ids: token.ids.map(Number), typeId: Number(typeId ?? 0) };
}

/** `["[SEP]", 102]` */
function idOf(value: unknown): number | null {
  return Array.isArray(value) && Number.isInteger(value[1]) ? (value[1] as number) : null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
