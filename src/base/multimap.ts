/** Maps with several values per key. A key without values is not in the map. */

/** Values stay in the order they were added. */
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

export function addTo<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const values = map.get(key);
  if (values === undefined) map.set(key, new Set([value]));
  else values.add(value);
}

/** Does nothing when it is not there. */
export function takeFrom<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const values = map.get(key);
  values?.delete(value);
  if (values?.size === 0) map.delete(key);
}
