/** A fingerprint of a namespace's packet handling, without starting a process (linux/netfilter/nf_tables.h, rtnetlink(7)). */
import { createHash } from 'node:crypto';
import { encodeMessage, NETLINK_NETFILTER, NLM_F_REQUEST, netlinkRequest } from './netlink.ts';
import { inNetns } from './netns.ts';
import { routingPayloads } from './policy-routes.ts';
import type { Netns } from './sys.ts';

const NFNL_SUBSYS_NFTABLES = 10;
const NFT_MSG_GETGEN = 16;
/** struct nfgenmsg and the first attribute, the generation; what follows names the process that asks. */
const GENERATION_BYTES = 12;
/** struct nfgenmsg: family, version, resource id; all zero. */
const GET_GENERATION = encodeMessage((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETGEN, NLM_F_REQUEST, new Uint8Array(4));

/** Equal texts: no nft transaction, and no change of the policy rules or of `table`, lies between. Throws `CV-SYS`. */
export function netnsFingerprint(netns: Netns | undefined, table: number): string {
  return inNetns(netns, () => {
    const hash = createHash('sha256');
    for (const payload of netlinkRequest(NETLINK_NETFILTER, GET_GENERATION)) {
      hash.update(payload.subarray(0, GENERATION_BYTES));
    }
    for (const payload of [...routingPayloads(4, table), ...routingPayloads(6, table)]) hash.update(payload);
    return hash.digest('base64');
  });
}
