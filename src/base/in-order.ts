/** A long list in order, without a long sort: who takes one item after the other leaves turns to others between them. */

interface Ranked<T> {
  readonly key: string;
  /** Where it stood: equal keys keep their order. */
  readonly at: number;
  readonly item: T;
}

/** `items` in ascending order of their keys, by a heap: twice as many comparisons as items at first, some dozens per item then. */
export function* inOrder<T>(items: Iterable<T>, keyOf: (item: T) => string): Generator<T> {
  const heap = Array.from(items, (item, at): Ranked<T> => ({ key: keyOf(item), at, item }));
  for (let at = (heap.length >> 1) - 1; at >= 0; at--) sink(heap, at);
  for (;;) {
    const [first] = heap;
    const last = heap.pop();
    if (first === undefined || last === undefined) return;
    if (heap.length > 0) heap[0] = last;
    sink(heap, 0);
    yield first.item;
  }
}

function sink<T>(heap: Ranked<T>[], from: number): void {
  for (let at = from; ; ) {
    const child = firstOf(heap, 2 * at + 1, 2 * at + 2);
    const [parent, other] = [heap[at], heap[child]];
    if (parent === undefined || other === undefined || isBefore(parent, other)) return;
    heap[at] = other;
    heap[child] = parent;
    at = child;
  }
}

function firstOf<T>(heap: readonly Ranked<T>[], left: number, right: number): number {
  const [a, b] = [heap[left], heap[right]];
  return a !== undefined && b !== undefined && isBefore(b, a) ? right : left;
}

function isBefore<T>(a: Ranked<T>, b: Ranked<T>): boolean {
  return a.key === b.key ? a.at < b.at : a.key < b.key;
}
