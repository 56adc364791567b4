/**
 * Which names of the mesh a client may have meant by the name it asked for. Pure text: lower case, no final dot.
 */

export interface DnsAlias {
  readonly name: string;
  /** Labels of the asked name that are left when a search domain is taken off; absent when none was. */
  readonly strippedLabels?: number;
}

/** In the order they are tried, without repeats. */
export function dnsAliases(asked: string, namespace: string, clusterDomain: string): readonly DnsAlias[] {
  const found = new Map<string, DnsAlias>();
  const add = (alias: DnsAlias): void => {
    if (!found.has(alias.name)) found.set(alias.name, alias);
  };
  for (const name of [asked, ...expansions(asked, namespace, clusterDomain)]) add({ name });
  for (const search of searchDomains(namespace, clusterDomain)) {
    if (!asked.endsWith(`.${search}`)) continue;
    const stripped = asked.slice(0, -search.length - 1);
    const strippedLabels = stripped.split('.').length;
    for (const name of [stripped, ...expansions(stripped, namespace, clusterDomain)]) add({ name, strippedLabels });
  }
  return [...found.values()];
}

/** Host names under which a service answers for `name`: its own, then wildcards, the most specific first. */
export function* hostnamesFor(name: string): Generator<string> {
  yield name;
  for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) yield `*${name.slice(dot)}`;
}

/** What Kubernetes writes into every pod; the pod's own resolv.conf is not looked at, as in the reference. */
function searchDomains(namespace: string, clusterDomain: string): readonly string[] {
  return [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain];
}

/** Short forms of Kubernetes service names, spelt out. */
function expansions(name: string, namespace: string, clusterDomain: string): readonly string[] {
  const labels = name.split('.');
  const isSvc = labels.at(-1) === 'svc';
  const services = `svc.${clusterDomain}`;
  switch (labels.length) {
    case 1:
      return [`${name}.${namespace}.${services}`];
    case 2:
      return [`${name}.${services}`, `${name}.${namespace}.${services}`];
    case 3:
      return isSvc ? [`${name}.${clusterDomain}`, `${name}.${services}`] : [`${name}.${services}`];
    case 4:
      return isSvc ? [`${name}.${clusterDomain}`] : [];
    default:
      return [];
  }
}
