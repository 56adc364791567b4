/** `culvert all`: everything a config_dump says, as tables one below the other. */
import type { Command } from 'commander';
import { certificateTable } from './certificates.ts';
import { readMeshDump } from './mesh-dump.ts';
import { namesOf, openOfDump, openTable } from './open-connections.ts';
import { policyTable } from './policies.ts';
import { serviceTable } from './services.ts';
import type { Terminal } from './terminal.ts';
import { type DumpViewOptions, dumpCommand, print, tableText } from './view-command.ts';
import { workloadTable } from './workloads.ts';

interface Options extends DumpViewOptions {
  readonly withHeaders?: true;
}

const EXAMPLES = `  $ culvert all
  $ culvert all --with-headers --file config_dump.json
  $ culvert all --output json     (the whole dump, settings and versions too)`;

export function allCommand(terminal: Terminal): Command {
  return dumpCommand('all', 'list workloads, services, policies, certificates and connections', EXAMPLES)
    .option('--with-headers', 'say above each table what it lists')
    .action(async (options: Options) => {
      const dump = await readMeshDump(options);
      const tables = () => [
        { title: 'Workloads', table: workloadTable(dump, dump.workloads) },
        { title: 'Services', table: serviceTable(dump, dump.services) },
        { title: 'Policies', table: policyTable(dump.policies) },
        { title: 'Certificates', table: certificateTable(dump.certificates, terminal.nowMs()) },
        { title: 'Connections', table: openTable(openOfDump(dump), namesOf(dump)) },
      ];
      print(terminal, options.output, dump.whole, (form) =>
        tables()
          .map(({ title, table }) => `${options.withHeaders ? `${title}:\n` : ''}${tableText(terminal, table, form)}`)
          .join('\n'),
      );
    });
}
