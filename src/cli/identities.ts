/** Where an agent has its certificates from, and what each identity waits for: what `/config_dump` has no field for. */
import type { IdentitiesView, RevocationView } from '../agent/admin/views.ts';
import { type AdminAddress, request, unexpected } from './admin-client.ts';
import type { Cell } from './table.ts';

interface Trouble {
  readonly nextTryAt?: string;
  readonly lastError?: string;
}

export interface Identities {
  readonly facts: readonly (readonly [string, Cell])[];
  /** By identity; only those whose last request failed. */
  readonly trouble: ReadonlyMap<string, Trouble>;
}

const PATH = '/certificates';

/** `undefined` for an agent that does not know the question, such as ztunnel. */
export async function readIdentities(admin: AdminAddress): Promise<Identities | undefined> {
  const reply = await request(admin, 'GET', PATH);
  if (reply.status === 404) return undefined;
  if (reply.status !== 200) throw unexpected(admin, PATH, reply);
  const { source, revocation, identities } = JSON.parse(reply.text) as IdentitiesView;
  const failing = identities.flatMap(({ identity, lastError, nextTryAt }) =>
    lastError === undefined ? [] : [[identity, { lastError, ...(nextTryAt !== undefined && { nextTryAt }) }] as const],
  );
  return {
    facts: [['Source', source], ...(revocation === undefined ? [] : [revocationFact(revocation)])],
    trouble: new Map(failing),
  };
}

export function revocationFact({ path, lists, revoked, loadedAt, lastError }: RevocationView): readonly [string, Cell] {
  const loaded =
    loadedAt === undefined
      ? 'never loaded'
      : `${revoked} revoked on ${lists} ${lists === 1 ? 'list' : 'lists'}, loaded ${loadedAt}`;
  const text = `${path}, ${loaded}`;
  return ['Revocation', lastError === undefined ? text : { text: `${text}; refused: ${lastError}`, colour: 'red' }];
}
