/** CPUs this process may use at once by its cgroup (cgroup v2 `cpu.max`, v1 `cpu.cfs_quota_us`). */

/** Content of a file, `undefined` when there is none. */
export type ReadText = (path: string) => string | undefined;

const ROOT_V2 = '/sys/fs/cgroup';
/** Where distributions mount the cpu controller of v1. */
const ROOTS_V1 = ['/sys/fs/cgroup/cpu', '/sys/fs/cgroup/cpu,cpuacct'] as const;

/** The tightest limit of our cgroup and those above it, for example 1.5; `undefined` = none. */
export function cgroupCpuLimit(readText: ReadText): number | undefined {
  const memberships = (readText('/proc/self/cgroup') ?? '').split('\n').map(membershipOf);
  const limits = memberships.flatMap(({ controllers, path }) => {
    if (controllers === '') return above(path).map((folder) => limitV2(readText(`${ROOT_V2}${folder}/cpu.max`)));
    if (controllers === undefined || !controllers.split(',').includes('cpu')) return [];
    return ROOTS_V1.flatMap((root) => above(path).map((folder) => limitV1(readText, `${root}${folder}`)));
  });
  const known = limits.filter((limit) => limit !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}

/** One line of cgroups(7): `id:controllers:path`; v2 has no controllers there. */
function membershipOf(line: string): { readonly controllers: string | undefined; readonly path: string } {
  const [, controllers, path = '/'] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
  return { controllers, path };
}

/** `/a/b` → `/a/b`, `/a`, and the root as ``. A path outside our view (`/../x`) is the root alone. */
function above(path: string): readonly string[] {
  if (path.split('/').includes('..')) return [''];
  const parts = path.split('/').filter((part) => part !== '');
  return [...parts.keys()].map((at) => `/${parts.slice(0, at + 1).join('/')}`).concat('');
}

function limitV2(text: string | undefined): number | undefined {
  const [quota, period] = (text ?? '').trim().split(' ').map(Number);
  return ratio(quota, period);
}

function limitV1(readText: ReadText, folder: string): number | undefined {
  return ratio(Number(readText(`${folder}/cpu.cfs_quota_us`)), Number(readText(`${folder}/cpu.cfs_period_us`)));
}

/** `max` and -1 mean no limit. */
function ratio(quota = Number.NaN, period = Number.NaN): number | undefined {
  return quota > 0 && period > 0 ? quota / period : undefined;
}
