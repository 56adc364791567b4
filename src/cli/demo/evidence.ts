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
export function logFields(line: string): ReadonlyMap<string, string> {
  const pairs = line.matchAll(/([a-z_.]+)=("(?:[^"\\]|\\.)*"|\S+)/g);
  return new Map([...pairs].map(([, key = '', value = '']) => [key, value.replace(/^"|"$/g, '')]));
}

/** The stable reason in a line. */
export function reasonCode(line: string): string | undefined {
  return /CV-[A-Z0-9-]+/.exec(line)?.[0];
}

/** The fields that matter on one screen line; the log itself has more. */
export function shortLogLine(node: string, line: string): string {
  const [time = '', level = ''] = line.split('\t');
  const fields = logFields(line);
  const shown = SHOWN.flatMap((key) => {
    const value = fields.get(key);
    return value === undefined ? [] : [`${key}=${cut(value)}`];
  });
  return `${time.slice(11, 23)} ${node} ${level} ${shown.join(' ')}`;
}

const SHOWN = [
  'direction',
  'src.workload',
  'src.addr',
  'src.identity',
  'dst.workload',
  'dst.addr',
  'bytes_sent',
  'bytes_recv',
  'duration',
  'error',
] as const;

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
