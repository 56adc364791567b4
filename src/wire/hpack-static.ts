/** HPACK static table (RFC 7541 Appendix A). */

const HTTP_HEADERS =
  'accept-charset accept-encoding accept-language accept-ranges accept access-control-allow-origin age allow ' +
  'authorization cache-control content-disposition content-encoding content-language content-length content-location ' +
  'content-range content-type cookie date etag expect expires from host if-match if-modified-since if-none-match ' +
  'if-range if-unmodified-since last-modified link location max-forwards proxy-authenticate proxy-authorization range ' +
  'referer refresh retry-after server set-cookie strict-transport-security transfer-encoding user-agent vary via ' +
  'www-authenticate';

/** Entry `i` has HPACK index `i + 1`. */
export const STATIC_TABLE: readonly (readonly [name: string, value: string])[] = [
  [':authority', ''],
  [':method', 'GET'],
  [':method', 'POST'],
  [':path', '/'],
  [':path', '/index.html'],
  [':scheme', 'http'],
  [':scheme', 'https'],
  [':status', '200'],
  [':status', '204'],
  [':status', '206'],
  [':status', '304'],
  [':status', '400'],
  [':status', '404'],
  [':status', '500'],
  ...HTTP_HEADERS.split(' ').map((name) => [name, name === 'accept-encoding' ? 'gzip, deflate' : ''] as const),
];

const byName = new Map<string, number>();
const byField = new Map<string, number>();
for (const [i, [name, value]] of STATIC_TABLE.entries()) {
  if (!byName.has(name)) byName.set(name, i + 1);
  if (value !== '') byField.set(`${name}\0${value}`, i + 1);
}

/** Index of the first entry with `name`; `undefined` when there is none. */
export function staticNameIndex(name: string): number | undefined {
  return byName.get(name);
}

/** Index of the entry that is exactly `name: value`. */
export function staticFieldIndex(name: string, value: string): number | undefined {
  return byField.get(`${name}\0${value}`);
}
