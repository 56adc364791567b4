/** Protobuf messages as resources to serve, with every key that an on-demand client may ask for. */
import { create, toBinary } from '@bufbuild/protobuf';
import { formatIp } from '../../base/ip.ts';
import { type Authorization, AuthorizationSchema } from '../../wire/pb/authorization_pb.ts';
import { AddressSchema, type NetworkAddress, type Service, type Workload } from '../../wire/pb/workload_pb.ts';
import type { ServedResource } from './resource-store.ts';

/** Of type `istio.workload.Address`. */
export function servedWorkload(workload: Workload): ServedResource {
  const address = create(AddressSchema, { type: { case: 'workload', value: workload } });
  return {
    name: workload.uid,
    bytes: toBinary(AddressSchema, address),
    aliases: workload.addresses.map((bytes) => `${workload.network}/${formatIp(bytes)}`),
    memberOf: Object.keys(workload.services),
    node: workload.node,
  };
}

/** Of type `istio.workload.Address`. */
export function servedService(service: Service): ServedResource {
  const address = create(AddressSchema, { type: { case: 'service', value: service } });
  return {
    name: `${service.namespace}/${service.hostname}`,
    bytes: toBinary(AddressSchema, address),
    aliases: service.addresses.map(vipKey),
    memberOf: [],
    node: '',
  };
}

/** Of type `istio.security.Authorization`. */
export function servedAuthorization(policy: Authorization): ServedResource {
  const bytes = toBinary(AuthorizationSchema, policy);
  return { name: `${policy.namespace}/${policy.name}`, bytes, aliases: [], memberOf: [], node: '' };
}

function vipKey({ network, address, length }: NetworkAddress): string {
  const isExact = length === undefined || length === address.length * 8;
  return `${network}/${formatIp(address)}${isExact ? '' : `/${length}`}`;
}
