/** An authorization policy as the mesh file spells it. What cannot be represented is refused: a policy never gets wider. */
import { type Cidr, parseCidr } from '../base/ip.ts';
import type { Match, Policy, Rule, ServiceAccountMatch, StringMatch } from '../model/policy.ts';
import { port, refuseCidr, segment } from './decode-address.ts';
import { boolean, type Decoder, fieldsOf, list, mappingOf, oneOf, text, textLike } from './decode-value.ts';

export const policy: Decoder<Policy> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const name = fields.required('name', policyName);
  const namespace = fields.required('namespace', emptyOrSegment);
  const scope = fields.required('scope', oneOf('Global', 'Namespace', 'WorkloadSelector'));
  const action = fields.required('action', oneOf('Allow', 'Deny'));
  const dryRun = fields.required('dryRun', boolean);
  const rules = fields.required('rules', list(rule));
  fields.end();
  if (scope === 'Namespace' && namespace === '')
    place
      .at('namespace')
      .refuse('the policy is for one namespace and names none', 'write the namespace, or scope: Global');
  if (name === undefined || namespace === undefined || scope === undefined) return undefined;
  if (action === undefined || dryRun === undefined || rules === undefined) return undefined;
  return { name, namespace, scope, action, dryRun, rules };
};

const policyName = textLike((value) => /^[^\s/]+$/.test(value), 'a policy name', 'write a name without slash or space');

/** Global policies may have no namespace. */
const emptyOrSegment: Decoder<string> = (value, place) => (value === '' ? '' : segment(value, place));

const stringMatch: Decoder<StringMatch> = (value, place) => {
  const mapping = mappingOf(value, place);
  if (mapping === undefined) return undefined;
  const [[kind, operand] = [], ...others] = mapping;
  if (others.length > 0 || kind === undefined) {
    return place.refuse(
      'a string match has exactly one key',
      'write !Exact "…", !Prefix "…", !Suffix "…" or !Presence [], each also as {Exact: "…"}',
    );
  }
  const name = oneOf('Exact', 'Prefix', 'Suffix', 'Presence')(kind, place.atKey(kind));
  if (name === undefined) return undefined;
  if (name === 'Presence') return presence(operand, place.at(kind));
  const matched = text(operand, place.at(kind));
  return matched === undefined ? undefined : { kind: KIND_OF[name], value: matched };
};

const KIND_OF = { Exact: 'exact', Prefix: 'prefix', Suffix: 'suffix' } as const;

const presence: Decoder<StringMatch> = (value, place) => {
  const isEmpty =
    value === null || (Array.isArray(value) && value.length === 0) || (value instanceof Map && value.size === 0);
  return isEmpty
    ? { kind: 'presence' }
    : place.refuse('Presence takes no value', 'write !Presence [] or {Presence: []}');
};

const cidr: Decoder<Cidr> = (value, place) => {
  const decoded = text(value, place);
  return decoded === undefined ? undefined : (parseCidr(decoded) ?? refuseCidr(decoded, place));
};

const serviceAccount: Decoder<ServiceAccountMatch> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const namespace = fields.required('namespace', segment);
  const account = fields.required('serviceAccount', segment);
  fields.end();
  return namespace === undefined || account === undefined ? undefined : { namespace, serviceAccount: account };
};

/**
 * The values of one field. An empty list is refused: it reads like "nobody" and would be evaluated as "everybody".
 */
function values<T>(decode: Decoder<T>): Decoder<readonly T[]> {
  const decodeList = list(decode);
  return (value, place) =>
    Array.isArray(value) && value.length === 0
      ? place.refuse(
          'the list is empty, which would match everything',
          'remove the field, or list what it should match',
        )
      : decodeList(value, place);
}

const match: Decoder<Match> = (value, place) => {
  const fields = fieldsOf(value, place);
  if (fields === undefined) return undefined;
  const decoded = {
    namespaces: fields.optional('namespaces', values(stringMatch)),
    notNamespaces: fields.optional('notNamespaces', values(stringMatch)),
    principals: fields.optional('principals', values(stringMatch)),
    notPrincipals: fields.optional('notPrincipals', values(stringMatch)),
    serviceAccounts: fields.optional('serviceAccounts', values(serviceAccount)),
    notServiceAccounts: fields.optional('notServiceAccounts', values(serviceAccount)),
    sourceIps: fields.optional('sourceIps', values(cidr)),
    notSourceIps: fields.optional('notSourceIps', values(cidr)),
    destinationIps: fields.optional('destinationIps', values(cidr)),
    notDestinationIps: fields.optional('notDestinationIps', values(cidr)),
    destinationPorts: fields.optional('destinationPorts', values(port)),
    notDestinationPorts: fields.optional('notDestinationPorts', values(port)),
  };
  fields.end();
  return withoutAbsent(decoded);
};

const rule: Decoder<Rule> = list(list(match));

type Present<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function withoutAbsent<T extends object>(fields: T): Present<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Present<T>;
}
