/** Turns what was seen into lines a reader can judge: hex, flows, log lines, counters. Pure. */
import { formatFlow } from '../lab/packet.ts';
import { readTlsRecords, type WireStream } from '../lab/wiretap.ts';

const HEX_ROW_BYTES = 16;
const VALUE_CHARS = 88;

/** `bytes` as rows of hex and text, `rows` at most. */
export function hexRows(bytes: Uint8Array, rows: number): readonly string[] {
  const count = Math.min(rows, Math.ceil(bytes.length / HEX_ROW_BYTES));
  return Array.from({ length: count }, (_, row) => {
    const part = bytes.subarray(row * HEX_ROW_BYTES, (row + 1) * HEX_ROW_BYTES);
    const hex = [...part].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const text = [...part].map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('');
    return `${hex.padEnd(HEX_ROW_BYTES * 3)} ${text}`;
  });
}

/** `10.0.0.1:4000 → 10.0.0.2:15008  7 TLS records, 2310 bytes: 16 03 01 …`; says so when it is not TLS. */
export function describeStream(stream: WireStream): string {
  if (stream.bytes.length === 0) return `${formatFlow(stream)}  no data`;
  const records = readTlsRecords(stream.bytes);
  const [start = ''] = hexRows(stream.bytes.subarray(0, 8), 1);
  const what = records === undefined ? 'not TLS' : `${records.count} TLS records`;
  return `${formatFlow(stream)}  ${what}, ${stream.bytes.length} bytes: ${start.slice(0, 23).trim()} …`;
}

/** The fields of one access-log line in the agent's text form. */
function logFields(line: string): ReadonlyMap<string, string> {
  const pairs = line.matchAll(/([a-z_.]+)=("(?:[^"\\]|\\.)*"|\S+)/g);
  return new Map([...pairs].map(([, key = '', value = '']) => [key, value.replace(/^"|"$/g, '')]));
}

/** The stable reason in a line. */
export function reasonCode(line: string): string | undefined {
  return logFields(line).get('reason');
}

/** One access-log line with the fields that matter here: when, where, who to whom, how much, and why not. */
export function shortLogLine(node: string, line: string): string {
  const fields = logFields(line);
  const at = line.slice(TIME_OF_DAY.from, TIME_OF_DAY.to);
  const parts = [
    `${at} ${node} ${(fields.get('direction') ?? '').padEnd(8)}`,
    `${party(fields, 'src')} → ${party(fields, 'dst')}`,
    `${fields.get('bytes_sent') ?? 0}/${fields.get('bytes_recv') ?? 0} B`,
    fields.get('duration') ?? '',
    ...(fields.has('reason') ? [`${fields.get('reason')}: ${cut(fields.get('error') ?? '')}`] : []),
  ];
  return parts.join('  ');
}

/** Of an RFC 3339 time: hours to milliseconds. */
const TIME_OF_DAY = { from: 11, to: 23 };

/** `sa/shop 10.244.1.11:4000`: the account of the proven identity, else the name the mesh has for the address. */
function party(fields: ReadonlyMap<string, string>, side: 'src' | 'dst'): string {
  const account = fields.get(`${side}.identity`)?.split('/').slice(-2).join('/');
  return `${account ?? fields.get(`${side}.workload`) ?? 'nobody known'} ${fields.get(`${side}.addr`) ?? ''}`;
}

function cut(text: string): string {
  return text.length <= VALUE_CHARS ? text : `${text.slice(0, VALUE_CHARS - 1)}…`;
}

export interface TrafficCounters {
  readonly opened: number;
  readonly closed: number;
  /** Closed with `response_flags="DENY"`. */
  readonly denied: number;
  readonly toServerBytes: number;
  readonly toClientBytes: number;
}

/** Sums over all label sets of one reporter, mTLS connections or plaintext ones. */
export function sumTraffic(metrics: string, labels: Readonly<Record<string, string>>): TrafficCounters {
  const wanted = Object.entries(labels).map(([key, value]) => `${key}="${value}"`);
  const lines = metrics.split('\n').filter((line) => wanted.every((label) => line.includes(label)));
  const sum = (name: string, label = ''): number =>
    lines
      .filter((line) => line.startsWith(`${name}{`) && line.includes(label))
      .reduce((total, line) => total + Number(line.split(' ').at(-1)), 0);
  return {
    opened: sum('istio_tcp_connections_opened_total'),
    closed: sum('istio_tcp_connections_closed_total'),
    denied: sum('istio_tcp_connections_closed_total', 'response_flags="DENY"'),
    toServerBytes: sum('istio_tcp_received_bytes_total'),
    toClientBytes: sum('istio_tcp_sent_bytes_total'),
  };
}

/** Columns as wide as their widest cell; numbers to the right. */
export function table(rows: readonly (readonly (string | number)[])[]): readonly string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => String(row[column] ?? '').length)));
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const width = widths[column] ?? 0;
        return typeof cell === 'number' ? String(cell).padStart(width) : cell.padEnd(width);
      })
      .join('  ')
      .trimEnd(),
  );
}
