/** Metrics of the xDS client: ztunnel's, and what else an operator of a control plane asks. */
import { Counter, Gauge, type Registry } from 'prom-client';

/** How a stream ended, spelt as ztunnel spells it. */
export type XdsTermination = 'ConnectionError' | 'Error' | 'Reconnect' | 'Complete';

export interface XdsMetrics {
  streamEnded(reason: XdsTermination): void;
  /** `url`: one of the types the client asks for. */
  messageReceived(url: string, bytes: number): void;
  messageRejected(url: string): void;
  /** A stream is open and has been answered. */
  connected(isConnected: boolean): void;
}

export function xdsMetrics(registers: Registry[]): XdsMetrics {
  const counter = (name: string, help: string, label: string): Counter =>
    new Counter({ name, help: `${help} (unstable).`, labelNames: [label], registers });
  const ends = counter(
    'istio_xds_connection_terminations_total',
    'The total number of completed connections to xds server',
    'reason',
  );
  const messages = counter('istio_xds_message_total', 'Total number of messages received', 'url');
  const bytes = counter('istio_xds_message_bytes_total', 'Total number of bytes received', 'url');
  const rejected = counter('culvert_xds_rejected_total', 'Responses refused whole, last good state kept', 'url');
  const help = 'Whether the control plane serves this agent now (unstable).';
  const gauge = new Gauge({ name: 'culvert_xds_connected', help, registers });
  return {
    streamEnded: (reason) => ends.inc({ reason }),
    messageReceived: (url, size) => {
      messages.inc({ url });
      bytes.inc({ url }, size);
    },
    messageRejected: (url) => rejected.inc({ url }),
    connected: (isConnected) => gauge.set(isConnected ? 1 : 0),
  };
}
