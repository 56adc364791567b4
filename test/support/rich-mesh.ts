/** A mesh file that uses every field of ztunnel's local form. */

export const RICH_MESH = `
workloads:
- uid: east1//Pod/retail/shop-0
  name: shop-0
  namespace: retail
  serviceAccount: shop
  workloadIps: ["10.42.1.7", "fd00::1:7"]
  protocol: HBONE
  node: n1
  workloadName: shop
  workloadType: deployment
  canonicalName: shop
  canonicalRevision: v1
  clusterId: east1
  locality: {region: r1, zone: z1, subzone: s1}
  authorizationPolicies: [retail/only-shop]
  capacity: 4294967295
  services: {}
- uid: east1//Pod/retail/cart-0
  name: cart-0
  namespace: retail
  serviceAccount: cart
  workloadIps: ["10.42.2.9"]
  network: net1
  protocol: HBONE
  nativeTunnel: true
  applicationTunnel: {protocol: PROXY, port: 15088}
  node: n2
  clusterId: east1
  waypoint: {destination: retail/waypoint.retail.svc.cluster.local, hboneMtlsPort: 15008}
  services: {"retail/cart.retail.svc.cluster.local": {80: 8080, 443: 8443}}
- uid: east1//Pod/retail/cart-1
  name: cart-1
  namespace: retail
  serviceAccount: cart
  workloadIps: ["10.42.2.10"]
  network: net1
  status: Unhealthy
  networkMode: HostNetwork
  clusterId: east1
  services: {"retail/cart.retail.svc.cluster.local": {80: 8080}}
- uid: west1//Pod/retail/far-0
  name: far-0
  namespace: retail
  workloadIps: ["10.99.0.1"]
  network: net2
  networkGateway: {destination: net2/192.0.2.1, hboneMtlsPort: 15008}
  clusterId: west1
  services: {}
- uid: west1//Pod/istio-gateways/eastwest-0
  name: eastwest-0
  namespace: istio-gateways
  workloadIps: ["192.0.2.1"]
  network: net2
  protocol: HBONE
  clusterId: west1
  services: {}
- uid: east1//Pod/retail/waypoint-0
  name: waypoint-0
  namespace: retail
  serviceAccount: waypoint
  workloadIps: ["10.42.2.20"]
  protocol: HBONE
  clusterId: east1
  services: {"retail/waypoint.retail.svc.cluster.local": {15008: 15008}}
- uid: east1/networking.istio.io/ServiceEntry/retail/mail/smtp.example.com
  name: mail
  namespace: retail
  workloadIps: []
  hostname: smtp.example.com
  clusterId: east1
  services: {}
services:
- name: cart
  namespace: retail
  hostname: cart.retail.svc.cluster.local
  vips: ["net1/10.96.0.12", "/fd00::96:12"]
  cidrVips: [{network: net1, cidr: 10.97.0.0/24}]
  ports: {80: 8080, 443: 0}
  subjectAltNames: [spiffe://cluster.local/ns/retail/sa/cart]
  waypoint: {destination: /10.42.2.20, hboneMtlsPort: 15008}
  weightedWaypoints:
  - {destination: {destination: retail/waypoint.retail.svc.cluster.local, hboneMtlsPort: 15008}, weight: 90}
  - {destination: {destination: /10.42.2.20, hboneMtlsPort: 15008}, weight: 10}
  loadBalancer: {routingPreferences: [Network, Region, Zone], mode: Failover, healthPolicy: AllowAll}
  ipFamilies: Dual
  canonical: true
  visibility: Namespace
- name: waypoint
  namespace: retail
  hostname: waypoint.retail.svc.cluster.local
  vips: ["/10.96.0.20"]
  ports: {15008: 15008}
policies:
- name: only-shop
  namespace: retail
  scope: WorkloadSelector
  action: Allow
  dryRun: true
  rules:
  - - - namespaces: [!Exact retail]
        notNamespaces: [!Prefix kube-]
        principals: [!Suffix /sa/shop]
        notPrincipals: [!Exact cluster.local/ns/retail/sa/cart]
        serviceAccounts: [{namespace: retail, serviceAccount: shop}]
        notServiceAccounts: [{namespace: retail, serviceAccount: cart}]
        sourceIps: [10.0.0.0/8]
        notSourceIps: ["fd00::/8"]
        destinationIps: [10.42.0.0/16]
        notDestinationIps: [10.43.0.1/32]
        destinationPorts: [8080]
        notDestinationPorts: [9999]
- {name: no-9999, namespace: retail, scope: Namespace, action: Deny, dryRun: false, rules: [[[{destinationPorts: [9999]}]]]}
- {name: nothing, namespace: istio-system, scope: Global, action: Allow, dryRun: false, rules: []}
`;
