/** The settings verdicts depend on: a slice of the agent's configuration. */

export interface DataPathSettings {
  /** `NETWORK`; empty text = the only one. */
  readonly network: string;
  /** Ports of the agent itself: relaying to them would loop. */
  readonly illegalPorts: ReadonlySet<number>;
  /** Send `baggage` with a 200 and believe that of a request where the source address says nothing. */
  readonly isResponseBaggageEnabled: boolean;
  /** Applications see the address of the client instead of the pod's own. */
  readonly isOrigSrcEnabled: boolean;
  /** A PROXY application tunnel is dialled on loopback instead of the pod address. */
  readonly isLocalhostAppTunnelEnabled: boolean;
}
