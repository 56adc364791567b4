/** PEM text (RFC 7468) to and from DER. Text between blocks is ignored, as every CA bundle needs; a broken block is an error. */
import { MeshError } from '../base/errors.ts';

/** Bundles of more certificates are refused. */
const MAX_BLOCKS = 1000;
const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----\r?\n([A-Za-z0-9+/=\s]*?)-----END \1-----/g;

export function derToPem(label: string, der: Uint8Array): string {
  const base64 = Buffer.from(der.buffer, der.byteOffset, der.byteLength).toString('base64');
  return `-----BEGIN ${label}-----\n${base64.replaceAll(/.{1,64}/g, '$&\n')}-----END ${label}-----\n`;
}

/** DER of every block with this label, in order; at least one, else `CV-WIRE-MALFORMED`. */
export function pemBlocks(label: string, text: string): Buffer[] {
  const blocks = [...text.matchAll(BLOCK)];
  const opened = text.split('-----BEGIN ').length - 1;
  if (blocks.length !== opened || blocks.length > MAX_BLOCKS) {
    throw new MeshError('CV-WIRE-MALFORMED', 'broken or too many PEM blocks', { opened, readable: blocks.length });
  }
  const wanted = blocks.filter((block) => block[1] === label).map((block) => Buffer.from(block[2] ?? '', 'base64'));
  if (wanted.length === 0) throw new MeshError('CV-WIRE-MALFORMED', `no PEM block "${label}" found`);
  return wanted;
}

/** One normalised PEM text for each certificate of a bundle. */
export function certificatePems(text: string): string[] {
  return pemBlocks('CERTIFICATE', text).map((der) => derToPem('CERTIFICATE', der));
}
