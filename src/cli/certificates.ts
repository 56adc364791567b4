/** `culvert certificates`: the identities this agent holds and the roots it trusts (columns of facts/operations.md §7.1). */
import type { Command } from 'commander';
import { type JsonObject, listOf, readMeshDump, textOf } from './mesh-dump.ts';
import type { Cell } from './table.ts';
import type { Terminal } from './terminal.ts';
import { type DumpViewOptions, dumpCommand, print, type Table, tableText } from './view-command.ts';

const EXAMPLES = `  $ culvert certificates
  $ culvert certificates --output json     (with the certificates, base64 of PEM; never a key)
  $ culvert certificates --file config_dump.json`;

export function certificatesCommand(terminal: Terminal): Command {
  return dumpCommand('certificates', 'list the certificates this agent holds', EXAMPLES)
    .aliases(['certificate', 'certs', 'cert'])
    .action(async (options: DumpViewOptions) => {
      const { certificates } = await readMeshDump(options);
      const table = () => certificateTable(certificates, terminal.nowMs());
      print(terminal, options.output, certificates, (form) => tableText(terminal, table(), form));
    });
}

export function certificateTable(certificates: readonly JsonObject[], nowMs: number): Table {
  return {
    header: ['CERTIFICATE NAME', 'TYPE', 'STATUS', 'VALID CERT', 'SERIAL NUMBER', 'NOT AFTER', 'NOT BEFORE'],
    rows: certificates.flatMap((entry) => rowsOf(entry, nowMs)),
    whenEmpty: 'No certificates: no captured pod needed one yet.',
  };
}

/** Without a chain there is one row that says so; else one per certificate, the roots last. */
function rowsOf(entry: JsonObject, nowMs: number): readonly (readonly Cell[])[] {
  const chain = listOf(entry['certChain']);
  if (chain.length === 0) return [[textOf(entry['identity']), 'NA', statusCell(entry), red('false'), 'NA', 'NA', 'NA']];
  const roots = listOf(entry['rootCerts']).map((certificate) => ({ certificate, type: 'Root' }));
  const isRootInChain = entry['rootCerts'] === undefined;
  const typed = chain.map((certificate, index) => ({ certificate, type: typeOf(index, chain.length, isRootInChain) }));
  return [...typed, ...roots].map(({ certificate, type }) => [
    textOf(entry['identity']),
    type,
    statusCell(entry),
    validCell(certificate, nowMs),
    hexSerial(textOf(certificate['serialNumber'])),
    textOf(certificate['expirationTime']),
    textOf(certificate['validFrom']),
  ]);
}

/** `isRootInChain`: older dumps have no list of roots, and the root at the end of the chain. */
function typeOf(index: number, length: number, isRootInChain: boolean): string {
  if (index === 0) return 'Leaf';
  return isRootInChain && index === length - 1 ? 'Root' : 'Intermediate';
}

function statusCell(entry: JsonObject): Cell {
  const state = textOf(entry['state']);
  if (state.includes('Unavailable')) return red('Unavailable');
  return state === 'Available' ? { text: state, colour: 'green' } : { text: state, colour: 'yellow' };
}

function validCell(certificate: JsonObject, nowMs: number): Cell {
  const fromMs = Date.parse(textOf(certificate['validFrom']));
  const untilMs = Date.parse(textOf(certificate['expirationTime']));
  return nowMs > fromMs && nowMs < untilMs ? { text: 'true', colour: 'green' } : red('false');
}

function hexSerial(decimal: string): string {
  return /^\d+$/.test(decimal) ? BigInt(decimal).toString(16) : decimal;
}

function red(text: string): Cell {
  return { text, colour: 'red' };
}
