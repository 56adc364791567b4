/**
 * JSON text in pieces, indented as ztunnel does it, so that others have the thread between them: a dump of a large cluster
 * is seconds of work on the thread that decides over connections.
 */

/** About a millisecond of work. */
const PIECE_CHARS = 16_384;

export interface JsonForm {
  /** Keys in alphabetical order at every depth; otherwise as they are. */
  readonly isSorted: boolean;
}

/** Iterables are lists, and make their items when these are written. Fields that hold `undefined` are absent. */
export function* jsonPieces(value: unknown, form: JsonForm): Generator<string> {
  const out: Out = { text: '', form };
  yield* write(out, value, '\n');
  yield out.text;
}

interface Out {
  readonly form: JsonForm;
  /** What is written and not given out. */
  text: string;
}

/** `newline`: with the indentation of the line on which `value` begins. */
function* write(out: Out, value: unknown, newline: string): Generator<string> {
  if (typeof value !== 'object' || value === null) out.text += JSON.stringify(value ?? null);
  else if (isIterable(value)) yield* writeList(out, value, newline);
  else yield* writeObject(out, value, newline);
}

function* writeList(out: Out, list: Iterable<unknown>, newline: string): Generator<string> {
  const inner = `${newline}  `;
  let isEmpty = true;
  for (const item of list) {
    out.text += `${isEmpty ? '[' : ','}${inner}`;
    isEmpty = false;
    yield* write(out, item, inner);
    if (out.text.length >= PIECE_CHARS) yield take(out);
  }
  out.text += isEmpty ? '[]' : `${newline}]`;
}

function* writeObject(out: Out, object: object, newline: string): Generator<string> {
  const inner = `${newline}  `;
  const entries = Object.entries(object).filter(([, field]) => field !== undefined);
  if (out.form.isSorted) entries.sort(([a], [b]) => (a < b ? -1 : 1));
  let isEmpty = true;
  for (const [key, field] of entries) {
    out.text += `${isEmpty ? '{' : ','}${inner}${JSON.stringify(key)}: `;
    isEmpty = false;
    yield* write(out, field, inner);
    if (out.text.length >= PIECE_CHARS) yield take(out);
  }
  out.text += isEmpty ? '{}' : `${newline}}`;
}

function take(out: Out): string {
  const { text } = out;
  out.text = '';
  return text;
}

function isIterable(value: object): value is Iterable<unknown> {
  return Symbol.iterator in value;
}
