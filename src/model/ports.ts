/** The ports of ambient mode: a contract with istio-cni, istiod, scrapers and the agents of other nodes. */
export const PORTS = {
  /** In each captured pod. */
  outbound: 15_001,
  inboundPlaintext: 15_006,
  hbone: 15_008,
  dns: 15_053,
  socks: 15_080,
  /** On the node. */
  admin: 15_000,
  stats: 15_020,
  readiness: 15_021,
} as const;
