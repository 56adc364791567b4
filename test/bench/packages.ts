/** The Debian tools of the bench: installs what is missing, or names the line that would. */
import { existsSync } from 'node:fs';
import type { ColumnName } from './columns/column.ts';
import { run } from './command.ts';

interface Tool {
  readonly package: string;
  readonly path: string;
  /** Only this column needs it. */
  readonly column?: ColumnName;
}

/** nginx is also the HTTP application of every column. */
const TOOLS: readonly Tool[] = [
  { package: 'iproute2', path: '/usr/sbin/ip' },
  { package: 'procps', path: '/usr/sbin/sysctl' },
  { package: 'wrk', path: '/usr/bin/wrk' },
  { package: 'nghttp2-client', path: '/usr/bin/h2load' },
  { package: 'iperf3', path: '/usr/bin/iperf3' },
  { package: 'nginx-light', path: '/usr/sbin/nginx' },
  { package: 'openssl', path: '/usr/bin/openssl' },
  { package: 'libnginx-mod-stream', path: '/usr/lib/nginx/modules/ngx_stream_module.so', column: 'nginx' },
  { package: 'haproxy', path: '/usr/sbin/haproxy', column: 'haproxy' },
  { package: 'nftables', path: '/usr/sbin/nft', column: 'culvert' },
];

export async function ensureTools(columns: readonly ColumnName[]): Promise<void> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    throw new Error('the bench needs root on Linux: sudo npm run bench');
  const needed = TOOLS.filter((tool) => tool.column === undefined || columns.includes(tool.column));
  const missing = needed.filter((tool) => !existsSync(tool.path)).map((tool) => tool.package);
  if (missing.length === 0) return;
  const install = ['apt-get', 'install', '-y', '--no-install-recommends', ...missing];
  process.stderr.write(`bench: ${install.join(' ')}\n`);
  // Without this a fresh Debian starts the packages' services, and they take ports 80 and cores.
  const unattended = ['env', 'DEBIAN_FRONTEND=noninteractive', 'RUNLEVEL=1'];
  try {
    await run([...unattended, 'apt-get', 'update'], undefined, 120_000);
    await run([...unattended, ...install], undefined, 300_000);
  } catch (error) {
    throw new Error(`install by hand: ${install.join(' ')}`, { cause: error });
  }
}
