/** Maps with several values per key, in the order they were added. A key without values is not in the map. */

export function append<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const values = map.get(key);
  if (values === undefined) map.set(key, [value]);
  else values.push(value);
}

/** Takes one `value` out again; does nothing when it is not there. */
export function detach<K, V>(map: Map<K, V[]>, key: K, value: V): void {
  const values = map.get(key);
  const at = values?.indexOf(value) ?? -1;
  if (values === undefined || at < 0) return;
  if (values.length === 1) map.delete(key);
  else values.splice(at, 1);
}
