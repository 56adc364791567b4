/** What an error of the data path is called in logs: the texts that operators and their tools know. */
import type { ErrorFields, MeshError } from '../base/errors.ts';
import type { ReasonCode } from '../base/reasons.ts';
import type { Refusal } from '../model/verdict.ts';

/** What log and metrics say of `error`: its code, and its text for operators. */
export function refusalOf(error: MeshError): Refusal {
  return { code: error.code, text: WORDINGS[error.code]?.(error) ?? error.message };
}

type Wording = (error: MeshError) => string;

const connectFailed: Wording = ({ message, fields }) =>
  `connection failed: ${String(fields['errno'] ?? message)}${at(fields)}`;
const http2Failed: Wording = ({ message, fields }) =>
  `${fields['isHandshake'] === true ? 'http2 handshake failed' : 'h2 failed'}: ${message}`;

/** The others are worded where they arise. */
const WORDINGS: Partial<Record<ReasonCode, Wording>> = {
  'CV-TUNNEL-TIMEOUT': () =>
    'connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008: deadline has elapsed',
  'CV-APP-TIMEOUT': ({ fields }) => `connection failed: deadline has elapsed${at(fields)}`,
  'CV-APP-REFUSED': connectFailed,
  'CV-TUNNEL-REFUSED': connectFailed,
  'CV-TUNNEL-HTTP2': http2Failed,
  'CV-TUNNEL-ABUSE': http2Failed,
  'CV-TUNNEL-CLOSED': http2Failed,
  'CV-TUNNEL-DEAD': http2Failed,
};

function at(fields: ErrorFields): string {
  return fields['address'] === undefined ? '' : ` (${String(fields['address'])})`;
}
