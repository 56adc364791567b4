/** The floor: the client connects to the server pod with nothing in between. */
import { type ColumnSetup, HTTP_PORT, IPERF_PORT, type Running } from './column.ts';

export async function startDirect(setup: ColumnSetup): Promise<Running> {
  const host = setup.pods.server.ip;
  return {
    targets: { http: { host, port: HTTP_PORT }, iperf: { host, port: IPERF_PORT } },
    processIds: [],
    tunnelPort: undefined,
  };
}
