/** IP addresses as canonical text (RFC 5952), with bytes, CIDR ranges and host:port; IPv4-mapped IPv6 becomes IPv4. */

/** An address and a TCP or UDP port. `ip` is canonical text without brackets. */
export interface HostPort {
  readonly ip: string;
  readonly port: number;
}

export interface Cidr {
  /** Network address bytes, 4 or 16, host bits zero. */
  readonly bytes: Uint8Array;
  readonly length: number;
}

/** 4 or 16 bytes of a textual address, IPv4-mapped as 4; `undefined` when `text` is no address. Zone ids are not addresses. */
export function ipBytes(text: string): Uint8Array | undefined {
  if (!text.includes(':')) return ipv4Bytes(text);
  const bytes = ipv6Bytes(text);
  return bytes !== undefined && isMapped(bytes) ? bytes.subarray(12) : bytes;
}

/** Text of 4 or 16 bytes; IPv6 as RFC 5952 section 4. */
export function formatIp(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  if (isMapped(bytes)) return bytes.subarray(12).join('.');
  const groups = Array.from({ length: 8 }, (_, i) => ((bytes[2 * i] ?? 0) << 8) | (bytes[2 * i + 1] ?? 0));
  const { start, length } = longestZeroRun(groups);
  const hex = groups.map((group) => group.toString(16));
  if (length < 2) return hex.join(':');
  return `${hex.slice(0, start).join(':')}::${hex.slice(start + length).join(':')}`;
}

export function canonicalIp(text: string): string | undefined {
  const bytes = ipBytes(text);
  // IPv4 has one spelling only.
  if (bytes !== undefined && !text.includes(':')) return text;
  return bytes === undefined ? undefined : formatIp(bytes);
}

export function ipFamily(ip: string): 4 | 6 {
  return ip.includes(':') ? 6 : 4;
}

export function isLoopback(ip: string): boolean {
  return ip === '::1' || ip.startsWith('127.');
}

/** `10.0.0.1:80` or `[::1]:80`. */
export function formatHostPort({ ip, port }: HostPort): string {
  return ipFamily(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** Parses what `formatHostPort` writes; `undefined` for anything else, host names included. */
export function parseHostPort(text: string): HostPort | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):(0|[1-9]\d{0,4})$/.exec(text);
  if (match === null) return undefined;
  const ip = canonicalIp(match[1] ?? match[2] ?? '');
  const port = Number(match[3]);
  const hasRightBrackets = (match[1] !== undefined) === (match[1] ?? '').includes(':');
  return ip === undefined || port > 65_535 || !hasRightBrackets ? undefined : { ip, port };
}

/** `10.0.0.0/8`, `::/0`, or a bare address (full length). `undefined` when malformed; host bits are cleared. */
export function parseCidr(text: string): Cidr | undefined {
  const [address = '', suffix, ...rest] = text.split('/');
  const bytes = address.includes(':') ? ipv6Bytes(address) : ipv4Bytes(address);
  if (bytes === undefined || rest.length > 0) return undefined;
  if (suffix !== undefined && !/^\d{1,3}$/.test(suffix)) return undefined;
  const length = suffix === undefined ? bytes.length * 8 : Number(suffix);
  return cidrOf(bytes, length);
}

/** `undefined` unless `bytes` are an address and `length` fits it; host bits are cleared, IPv4-mapped becomes IPv4. */
export function cidrOf(bytes: Uint8Array, length: number): Cidr | undefined {
  if ((bytes.length !== 4 && bytes.length !== 16) || length > bytes.length * 8) return undefined;
  const mapped = isMapped(bytes) && length >= 96;
  return mapped
    ? { bytes: maskBytes(bytes.subarray(12), length - 96), length: length - 96 }
    : { bytes: maskBytes(bytes, length), length };
}

export function formatCidr(cidr: Cidr): string {
  return `${formatIp(cidr.bytes)}/${cidr.length}`;
}

function maskBytes(bytes: Uint8Array, length: number): Uint8Array {
  return bytes.map((byte, i) => byte & maskByte(length, i));
}

/** Byte number `index` of the mask of a prefix of `length` bits. */
function maskByte(length: number, index: number): number {
  const bits = Math.min(8, Math.max(0, length - 8 * index));
  return (0xff << (8 - bits)) & 0xff;
}

/** Four decimal numbers, each without leading zero: some parsers read that as octal, and two readings are a hole. */
function ipv4Bytes(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(4);
  let part = 0;
  let digits = 0;
  let value = 0;
  for (let at = 0; at <= text.length; at++) {
    const code = at === text.length ? DOT : text.charCodeAt(at);
    if (code === DOT) {
      if (digits === 0 || part > 3) return undefined;
      bytes[part++] = value;
      digits = 0;
      value = 0;
      continue;
    }
    const digit = code - ZERO;
    if (digit < 0 || digit > 9 || (digits > 0 && value === 0)) return undefined;
    digits += 1;
    value = value * 10 + digit;
    if (value > 255) return undefined;
  }
  return part === 4 ? bytes : undefined;
}

const DOT = 0x2e;
const ZERO = 0x30;

function ipv6Bytes(text: string): Uint8Array | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const head = groupsOf(halves[0] ?? '', halves.length === 1);
  const tail = groupsOf(halves[1] ?? '', true);
  if (head === undefined || tail === undefined) return undefined;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const groups = [...head, ...Array.from({ length: missing }, () => 0), ...tail];
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff]));
}

/** 16-bit groups of one side of `::`. Only the last part of the address may be dotted IPv4. */
function groupsOf(text: string, endsAddress: boolean): number[] | undefined {
  if (text === '') return [];
  const parts = text.split(':');
  const groups: number[] = [];
  for (const [i, part] of parts.entries()) {
    if (part.includes('.')) {
      const v4 = endsAddress && i === parts.length - 1 ? ipv4Bytes(part) : undefined;
      if (v4 === undefined) return undefined;
      const [a = 0, b = 0, c = 0, d = 0] = v4;
      groups.push((a << 8) | b, (c << 8) | d);
    } else {
      if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return undefined;
      groups.push(Number.parseInt(part, 16));
    }
  }
  return groups;
}

function isMapped(bytes: Uint8Array): boolean {
  return bytes.length === 16 && bytes[10] === 0xff && bytes[11] === 0xff && bytes.subarray(0, 10).every((b) => b === 0);
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let i = 0; i < groups.length; i++) {
    let end = i;
    while (end < groups.length && groups[end] === 0) end++;
    if (end - i > best.length) best = { start: i, length: end - i };
    i = end;
  }
  return best;
}
