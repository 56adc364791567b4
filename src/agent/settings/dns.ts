/** The DNS proxy in the pods. */
import { messageOf } from '../../base/errors.ts';
import { type HostPort, parseHostPort } from '../../base/ip.ts';
import { PORTS } from '../../model/ports.ts';
import { isDedicated } from './dedicated.ts';
import type { SettingsReader, Source } from './reader.ts';
import { nameserversOf, parseResolvConf, type ResolvConf } from './resolv-conf.ts';

export interface DnsSettings {
  /** `undefined`: no proxy, and no pod's DNS is redirected. */
  readonly dnsProxy: DnsProxyConfig | undefined;
  /** Whom the agent asks for endpoints known by host name alone; `undefined`: as the system's resolv.conf says. */
  readonly hostNameservers: readonly HostPort[] | undefined;
  /** Whose services win over other foreign ones with the same host name. */
  readonly preferredServiceNamespace: string | undefined;
}

export interface DnsProxyConfig extends ResolvConf {
  readonly listen: DnsListen;
}

/** `localhost`: loopback of the families that a pod has. */
export type DnsListen =
  | { readonly kind: 'localhost'; readonly port: number }
  | { readonly kind: 'address'; readonly address: HostPort };

const CAPTURE: Source = { meta: 'DNS_CAPTURE' };
const ADDRESS: Source = { meta: 'DNS_PROXY_ADDR' };
const RESOLV_CONF: Source = { env: 'CULVERT_RESOLV_CONF' };
/** The rules in pods send port 53 there. */
const DEFAULT_ADDRESS = `localhost:${PORTS.dns}`;

export function dnsSettings(read: SettingsReader): DnsSettings {
  return {
    dnsProxy: isEnabled(read) ? dnsProxy(read) : undefined,
    hostNameservers: read.isSet(RESOLV_CONF) ? nameserversOf(resolvConfText(read)) : undefined,
    preferredServiceNamespace: read.optional({ env: 'PREFERED_SERVICE_NAMESPACE' }),
  };
}

/**
 * Off by default with a pods file and in a pod of our own: nothing says then that the nameservers of the agent are those of the pods, as it is in a
 * cluster, and names that resolve today must not stop doing so. Anything but `true` disables, as in the reference.
 */
function isEnabled(read: SettingsReader): boolean {
  const isByHand = read.start.defaults === 'culvert' && isDedicated(read);
  const hasPodsFile = read.isSet({ flag: 'pods', env: 'CULVERT_PODS' });
  return read.text(CAPTURE, String(!hasPodsFile && !isByHand)).toLowerCase() === 'true';
}

function dnsProxy(read: SettingsReader): DnsProxyConfig {
  const onDemand: Source = { env: 'XDS_ON_DEMAND' };
  if (read.text(onDemand, 'false') === 'true') {
    // A name would be unknown until somebody asked for its address.
    read.refuse(onDemand, 'and the DNS proxy exclude each other: set ISTIO_META_DNS_CAPTURE=false or leave it out');
  }
  return { listen: listen(read), ...resolvConf(read) };
}

function listen(read: SettingsReader): DnsListen {
  const text = read.text(ADDRESS, DEFAULT_ADDRESS);
  const port = /^localhost:([1-9]\d{0,4})$/.exec(text)?.[1];
  const address = parseHostPort(text);
  const parsed: DnsListen | undefined =
    port === undefined
      ? address && { kind: 'address', address }
      : Number(port) <= 65_535
        ? { kind: 'localhost', port: Number(port) }
        : undefined;
  if (parsed === undefined) {
    read.refuse(
      ADDRESS,
      `failed to parse DNS_PROXY_ADDR: ${text} (write ${DEFAULT_ADDRESS}, or an address with its port)`,
    );
    return { kind: 'localhost', port: PORTS.dns };
  }
  if (portOf(parsed) !== PORTS.dns) {
    read.refuse(ADDRESS, `must have port ${PORTS.dns}, to which the rules in pods send DNS, got "${text}"`);
  }
  return parsed;
}

function portOf(parsed: DnsListen): number {
  return parsed.kind === 'localhost' ? parsed.port : parsed.address.port;
}

function resolvConf(read: SettingsReader): ResolvConf {
  const parsed = parseResolvConf(resolvConfText(read));
  if (parsed.nameservers.length === 0) {
    read.refuse(
      RESOLV_CONF,
      `${resolvConfPath(read)} names no nameserver that pods can reach (loopback is not): give the agent one (dnsPolicy ClusterFirst), or set ISTIO_META_DNS_CAPTURE=false`,
    );
  }
  return parsed;
}

function resolvConfPath(read: SettingsReader): string {
  return read.text(RESOLV_CONF, '/etc/resolv.conf');
}

/** Empty when it is not there. */
function resolvConfText(read: SettingsReader): string {
  const path = resolvConfPath(read);
  try {
    return read.start.readText(path) ?? '';
  } catch (error) {
    read.refuse(RESOLV_CONF, `${path} cannot be read: ${messageOf(error)}`);
    return '';
  }
}
