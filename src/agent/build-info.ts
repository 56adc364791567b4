/** Which build this is, in the words of the reference: `version` of `/config_dump`, and the first line of the log. */

export interface BuildInfo {
  readonly version: string;
  readonly gitRevision: string;
  /** There is no Rust here; the field says what runs instead, for example `node v26.10.0`. */
  readonly rustVersion: string;
  readonly buildProfile: string;
  readonly buildStatus: string;
  readonly istioVersion: string;
  readonly cryptoProvider: string;
}

/** `metadata`: an image that stands in for ztunnel's says in `ISTIO_META_ISTIO_VERSION` which Istio it belongs to. */
export function buildInfo(version: string, metadata: Readonly<Record<string, string>>): BuildInfo {
  return {
    version,
    gitRevision: 'unknown',
    rustVersion: `node ${process.version}`,
    buildProfile: 'release',
    buildStatus: 'Clean',
    istioVersion: metadata['ISTIO_VERSION'] ?? 'unknown',
    cryptoProvider: `openssl ${process.versions.openssl}`,
  };
}

/** `version.BuildInfo{Version:"…", …}`, as tools of Istio look for it. */
export function buildInfoText(info: BuildInfo): string {
  const fields = Object.entries(info).map(([name, value]) => `${name[0]?.toUpperCase()}${name.slice(1)}:"${value}"`);
  return `version.BuildInfo{${fields.join(', ')}}`;
}
