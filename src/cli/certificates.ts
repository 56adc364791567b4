/** `culvert certificates`: the identities this agent holds and the roots it trusts (columns of `istioctl ztunnel-config certificate`). */
import type { Command } from 'commander';
import { readIdentities } from './identities.ts';
import { type JsonObject, listOf, readMeshDump, textOf } from './mesh-dump.ts';
import { type Cell, renderFacts } from './table.ts';
import { hasColour, type Terminal } from './terminal.ts';
import { type DumpViewOptions, dumpCommand, type OutputForm, print, type Table, tableText } from './view-command.ts';

const EXAMPLES = `  $ culvert certificates
  $ culvert certificates --output json     (with the certificates, base64 of PEM; never a key)
  $ culvert certificates --file config_dump.json`;

export function certificatesCommand(terminal: Terminal): Command {
  return dumpCommand('certificates', 'list the certificates this agent holds', EXAMPLES)
    .aliases(['certificate', 'certs', 'cert'])
    .action(async (options: DumpViewOptions) => {
      const { certificates } = await readMeshDump(options, ['certificates']);
      const identities = options.file === undefined ? await readIdentities(options.admin) : undefined;
      const all = certificates.map((entry) => ({ ...entry, ...identities?.trouble.get(textOf(entry['identity'])) }));
      print(terminal, options.output, all, (form) => page(terminal, all, identities?.facts ?? [], form));
    });
}

/** What istioctl prints, and with it why an identity has none, and where all come from. */
function page(
  terminal: Terminal,
  certificates: readonly JsonObject[],
  facts: readonly (readonly [string, Cell])[],
  form: OutputForm,
): string {
  const table = tableText(terminal, certificateTable(certificates, terminal.nowMs()), form);
  return form === 'short' || facts.length === 0 ? table : `${renderFacts(facts, hasColour(terminal))}\n${table}`;
}

export function certificateTable(certificates: readonly JsonObject[], nowMs: number): Table {
  const isFailing = certificates.some((entry) => entry['lastError'] !== undefined);
  return {
    header: [...ISTIOCTL_COLUMNS, ...(isFailing ? ['NEXT TRY', 'LAST ERROR'] : [])],
    shortColumns: ISTIOCTL_COLUMNS.length,
    rows: certificates.flatMap((entry) => rowsOf(entry, nowMs)),
    whenEmpty: 'No certificates: no captured pod needed one yet.',
  };
}

const ISTIOCTL_COLUMNS = [
  'CERTIFICATE NAME',
  'TYPE',
  'STATUS',
  'VALID CERT',
  'SERIAL NUMBER',
  'NOT AFTER',
  'NOT BEFORE',
] as const;

/** Without a chain there is one row that says so; else one per certificate, the roots last. */
function rowsOf(entry: JsonObject, nowMs: number): readonly (readonly Cell[])[] {
  const chain = listOf(entry['certChain']);
  const trouble = entry['lastError'] === undefined ? [] : [textOf(entry['nextTryAt']), red(textOf(entry['lastError']))];
  if (chain.length === 0) {
    return [[textOf(entry['identity']), 'NA', statusCell(entry), red('false'), 'NA', 'NA', 'NA', ...trouble]];
  }
  const roots = listOf(entry['rootCerts']).map((certificate) => ({ certificate, type: 'Root' }));
  const isRootInChain = entry['rootCerts'] === undefined;
  const typed = chain.map((certificate, index) => ({ certificate, type: typeOf(index, chain.length, isRootInChain) }));
  return [...typed, ...roots].map(({ certificate, type }, index) => [
    textOf(entry['identity']),
    type,
    statusCell(entry),
    validCell(certificate, nowMs),
    hexSerial(textOf(certificate['serialNumber'])),
    textOf(certificate['expirationTime']),
    textOf(certificate['validFrom']),
    ...(index === 0 ? trouble : []),
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
