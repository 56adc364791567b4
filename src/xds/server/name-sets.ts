/** Sets of names under keys, without empty sets left behind. */

export function appendTo(sets: Map<string, Set<string>>, key: string, name: string): void {
  const names = sets.get(key);
  if (names === undefined) sets.set(key, new Set([name]));
  else names.add(name);
}

export function takeFrom(sets: Map<string, Set<string>>, key: string, name: string): void {
  const names = sets.get(key);
  if (names === undefined || !names.delete(name) || names.size > 0) return;
  sets.delete(key);
}
