/** The `baggage` header of HBONE (W3C Baggage syntax, ztunnel's keys). Feeds labels only; nothing is ever authorized by it. */

type WorkloadType = 'deployment' | 'cronjob' | 'pod' | 'job';

/** What one side says about its workload. Empty text = not said. */
export interface Baggage {
  readonly cluster: string;
  readonly namespace: string;
  readonly workloadType: WorkloadType;
  readonly workloadName: string;
  readonly serviceName: string;
  readonly serviceVersion: string;
  readonly region: string;
  readonly zone: string;
}

/** Header bytes looked at, all lines together; a peer that sends more is not worth describing. */
export const MAX_BAGGAGE_CHARS = 8_192;
/** Members looked at: as many as W3C Baggage has allowed at most. */
const MAX_MEMBERS = 180;
/** Longest value kept: a Kubernetes name has at most 253 characters. Longer ones are dropped, not cut. */
const MAX_VALUE_CHARS = 253;
const PRINTABLE_ASCII = /^[\x20-\x7e]*$/;
/** What fits between commas without escaping, which this header does not have. */
const WRITABLE_VALUE = /^[\x21-\x2b\x2d-\x7e]+$/;

type TextKey = Exclude<keyof Baggage, 'workloadType'>;

const TEXT_KEYS = {
  'k8s.cluster.name': 'cluster',
  'k8s.namespace.name': 'namespace',
  'service.name': 'serviceName',
  'service.version': 'serviceVersion',
  'cloud.region': 'region',
  'cloud.availability_zone': 'zone',
} as const satisfies Record<string, TextKey>;

const TYPE_KEYS = {
  'k8s.deployment.name': 'deployment',
  'k8s.cronjob.name': 'cronjob',
  'k8s.pod.name': 'pod',
  'k8s.job.name': 'job',
} as const satisfies Record<string, WorkloadType>;

/** One header value; fields that are empty or cannot be written are left out, so the result may be empty text. */
export function formatBaggage(baggage: Baggage): string {
  const pairs: readonly (readonly [string, string])[] = [
    ['k8s.cluster.name', baggage.cluster],
    ['k8s.namespace.name', baggage.namespace],
    [`k8s.${baggage.workloadType}.name`, baggage.workloadName],
    ['service.name', baggage.serviceName],
    ['service.version', baggage.serviceVersion],
    ['cloud.region', baggage.region],
    ['cloud.availability_zone', baggage.zone],
  ];
  return pairs
    .filter(([, value]) => WRITABLE_VALUE.test(value))
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

/** Reads all `baggage` header lines, 180 members of them; the last value of a key wins. `undefined` when nothing usable was said. */
export function parseBaggage(lines: readonly string[]): Baggage | undefined {
  const text = lines.join(',');
  if (text.length > MAX_BAGGAGE_CHARS || !PRINTABLE_ASCII.test(text)) return undefined;
  const values: Partial<Record<TextKey, string>> = {};
  let workloadType: WorkloadType = 'deployment';
  for (const item of text.split(',', MAX_MEMBERS)) {
    // The second piece is the value; what follows another `=` is not ours (ztunnel reads it so).
    const [key = '', value = ''] = item.split('=', 2);
    if (value.length > MAX_VALUE_CHARS) continue;
    if (isTextKey(key)) values[TEXT_KEYS[key]] = value;
    if (!isTypeKey(key)) continue;
    workloadType = TYPE_KEYS[key];
    values.workloadName = value;
  }
  const baggage = { ...EMPTY, ...values, workloadType };
  return Object.values(values).some((value) => value !== '') ? baggage : undefined;
}

const EMPTY: Baggage = {
  cluster: '',
  namespace: '',
  workloadType: 'deployment',
  workloadName: '',
  serviceName: '',
  serviceVersion: '',
  region: '',
  zone: '',
};

function isTextKey(key: string): key is keyof typeof TEXT_KEYS {
  return Object.hasOwn(TEXT_KEYS, key);
}

function isTypeKey(key: string): key is keyof typeof TYPE_KEYS {
  return Object.hasOwn(TYPE_KEYS, key);
}
