/** The types a mesh is told in, in the order in which they are asked for and pushed. */
export const TYPE_URL = {
  address: 'type.googleapis.com/istio.workload.Address',
  authorization: 'type.googleapis.com/istio.security.Authorization',
} as const;
