/** `culvert explain`: what a reason code means, or what happened to one connection. */
import { Argument, Command, Option } from 'commander';
import { stringify } from 'yaml';
import type { ExplainView } from '../agent/admin/views.ts';
import type { ConnectionView, PeerView } from '../telemetry/connection-view.ts';
import { type AdminAddress, request, unexpected } from './admin-client.ts';
import { CliError, EXIT_FAILURE, EXIT_USAGE } from './exit-codes.ts';
import { bytesText, durationText } from './quantities.ts';
import { type ReasonRow, reasonRows, reasonsMarkdown } from './reasons-table.ts';
import { type Cell, renderFacts, renderTable } from './table.ts';
import { hasColour, type Terminal } from './terminal.ts';
import { adminOption } from './view-command.ts';

interface Options {
  readonly admin: AdminAddress;
  readonly output: 'table' | 'json' | 'yaml' | 'markdown';
  readonly list?: true;
}

const FAULTS: Readonly<Record<ReasonRow['fault'], string>> = {
  peer: 'the other end',
  policy: 'nobody: it is denied on purpose',
  upstream: 'the destination',
  control: 'the control plane: mesh state or certificates',
  local: 'this node: limits, configuration or shutdown',
  bug: 'Culvert',
};

const EXAMPLES = `
Examples:
  $ culvert explain CV-POLICY-DENY        (works without an agent)
  $ culvert explain 3f2a91c0-1k           (connection="…" of an access-log line, or ID of culvert connections)
  $ culvert explain --list                (all codes)
  $ culvert explain --list --output markdown`;

export function explainCommand(terminal: Terminal): Command {
  return new Command('explain')
    .description('say what a reason code means, or why a connection was refused')
    .addArgument(new Argument('[code or id]', 'a reason code (CV-…) or a connection id'))
    .addOption(adminOption())
    .addOption(
      new Option('-o, --output <form>', 'how to print; markdown is for --list')
        .choices(['table', 'json', 'yaml', 'markdown'])
        .default('table'),
    )
    .option('-l, --list', 'list all reason codes')
    .addHelpText('after', EXAMPLES)
    .action(async (subject: string | undefined, options: Options) => {
      if (options.list) return terminal.out(listText(options, terminal));
      if (subject === undefined || subject === '')
        throw new CliError(EXIT_USAGE, 'name a reason code or a connection id, or use --list');
      if (/^cv-/i.test(subject)) return terminal.out(codeText(subject.toUpperCase(), options, terminal));
      terminal.out(await connectionText(subject, options, terminal));
    });
}

function listText({ output }: Options, terminal: Terminal): string {
  if (output === 'markdown') return `${reasonsMarkdown()}\n`;
  const rows = reasonRows();
  if (output !== 'table') return dataText(output, rows);
  const cells = rows.map(({ code, layer, cause }): readonly Cell[] => [code, layer, cause]);
  return renderTable(['CODE', 'LAYER', 'CAUSE'], cells, hasColour(terminal));
}

function codeText(code: string, { output }: Options, terminal: Terminal): string {
  const row = reasonRows().find((candidate) => candidate.code === code);
  if (row === undefined)
    throw new CliError(EXIT_USAGE, `there is no reason code ${code}; culvert explain --list has all`);
  return output === 'table' ? renderFacts(reasonFacts(row), hasColour(terminal)) : dataText(output, row);
}

async function connectionText(id: string, { admin, output }: Options, terminal: Terminal): Promise<string> {
  const path = `/explain?id=${encodeURIComponent(id)}`;
  const reply = await request(admin, 'GET', path);
  // With nothing to say, it does not know the question.
  if (reply.status === 404 && reply.text !== '') {
    throw new CliError(
      EXIT_FAILURE,
      `the agent knows no connection "${id}": it is not open and not among the last 1024 that ended
  - ids are per agent: ask the node of the pod, with --admin
  - the access log still has its line: look for connection="${id}"`,
    );
  }
  if (reply.status !== 200) throw unexpected(admin, path, reply);
  const view = JSON.parse(reply.text) as ExplainView;
  if (output !== 'table') return dataText(output, view);
  const reason = view.reason === undefined ? [] : reasonFacts(view.reason);
  return renderFacts([...connectionFacts(view.connection), ...reason], hasColour(terminal));
}

function dataText(output: Exclude<Options['output'], 'table'>, value: unknown): string {
  if (output === 'markdown') throw new CliError(EXIT_USAGE, '--output markdown is for --list');
  return output === 'json' ? `${JSON.stringify(value, undefined, 2)}\n` : stringify(value);
}

function reasonFacts({
  code,
  cause,
  layer,
  fault,
  next,
  flag,
  status,
}: ReasonRow): readonly (readonly [string, Cell])[] {
  return [
    ['Reason', { text: code, colour: 'red' }],
    ['Cause', cause],
    ['Decided by', layer],
    ['To act', FAULTS[fault]],
    ['Next step', next],
    ['Seen as', `response_flags="${flag}" in metrics; HTTP ${status} to an HBONE peer`],
  ];
}

function connectionFacts(view: ConnectionView): readonly (readonly [string, Cell])[] {
  const target = view.originalDst ?? view.hboneAuthority ?? view.dst;
  const traffic = `${bytesText(view.clientBytes)} to the server, ${bytesText(view.serverBytes)} to the client`;
  return [
    ['Connection', view.id],
    ['State', stateCell(view)],
    ['Direction', `${view.direction}, ${securityText(view)}`],
    ['From', `${view.src}${peerText(view.source)}`],
    ['To', `${target}${peerText(view.destination)}`],
    ...(target === view.dst ? [] : [['By way of', view.dst] as const]),
    ...(view.service === undefined ? [] : [['Service', view.service] as const]),
    ['Opened', view.openedAt],
    ['Traffic', traffic],
    ...(view.error === undefined ? [] : [['Error', { text: view.error, colour: 'red' }] as const]),
  ];
}

function securityText({ isMutualTls, protocol }: ConnectionView): string {
  if (protocol === 'SAMENODE') return 'same-node short cut (in clear, inside this agent)';
  return isMutualTls ? 'mutual TLS (HBONE)' : 'plaintext';
}

function stateCell({ state, durationMs }: ConnectionView): Cell {
  const time = durationText(durationMs);
  switch (state) {
    case 'open':
      return { text: `open for ${time}`, colour: 'green' };
    case 'complete':
      return `ended in order after ${time}`;
    case 'refused':
      return { text: `refused or cut after ${time}`, colour: 'red' };
  }
}

function peerText({ workload, namespace, identity }: PeerView): string {
  const name = workload === undefined ? [] : [`${workload}.${namespace ?? ''}`];
  const parts = [...name, ...(identity === undefined ? [] : [identity])];
  return parts.length === 0 ? '' : ` (${parts.join(', ')})`;
}
