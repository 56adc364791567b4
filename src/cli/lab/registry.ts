/**
 * Labs that exist on this machine: a folder each under /run, naming its owner, and namespaces that carry its id.
 * Removal is synchronous, because it also runs in exit and signal handlers, and complete: processes, namespaces, files.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { NETNS_FOLDER } from './namespace.ts';

const LABS_FOLDER = '/run/culvert-lab';
const OWNER_FILE = 'owner';
const KEPT_FILE = 'kept';
const ID = /^[0-9a-f]{6}$/;

export function labFolder(id: string): string {
  return path.join(LABS_FOLDER, id);
}

/** Every namespace of the lab begins with it. */
export function netnsPrefix(id: string): string {
  return `cv${id}-`;
}

/** Creates the lab's folder (0700), owned by this process. Call it before anything else of the lab exists. */
export function registerLab(id: string): string {
  const folder = labFolder(id);
  mkdirSync(LABS_FOLDER, { recursive: true, mode: 0o700 });
  // In one step: who removes stale labs at this moment must not find one without its owner.
  const draft = path.join(LABS_FOLDER, `.${id}`);
  mkdirSync(draft, { mode: 0o700 });
  writeFileSync(path.join(draft, OWNER_FILE), processTag(process.pid) ?? '');
  renameSync(draft, folder);
  return folder;
}

/** The lab outlives this process, until `removeLab`. */
export function keepLab(id: string): void {
  writeFileSync(path.join(labFolder(id), KEPT_FILE), '');
}

/** Labs that `keepLab` left. */
export function keptLabs(): readonly string[] {
  return listLabs().filter(isKept);
}

function listLabs(): readonly string[] {
  return existsSync(LABS_FOLDER) ? readdirSync(LABS_FOLDER).filter((name) => ID.test(name)) : [];
}

function isKept(id: string): boolean {
  return existsSync(path.join(labFolder(id), KEPT_FILE));
}

/** Removes what earlier runs left when they were killed; kept labs stay. Returns the ids. */
export function removeStaleLabs(): readonly string[] {
  const stale = listLabs().filter((id) => !isKept(id) && !isOwned(id));
  for (const id of stale) removeLab(id);
  return stale;
}

/** Removes a lab, whoever owns it. Removing what is not there is no error. */
export function removeLab(id: string): void {
  if (!ID.test(id)) throw new RangeError(`${id} is not the id of a lab`);
  const names = labNetns(id);
  killAllIn(names);
  const commands = names.map((name) => `netns del ${name}\n`).join('');
  if (names.length > 0) spawnSync('ip', ['-force', '-batch', '-'], { input: commands });
  rmSync(labFolder(id), { recursive: true, force: true });
}

function labNetns(id: string): readonly string[] {
  const prefix = netnsPrefix(id);
  return existsSync(NETNS_FOLDER) ? readdirSync(NETNS_FOLDER).filter((name) => name.startsWith(prefix)) : [];
}

function isOwned(id: string): boolean {
  const owner = readText(path.join(labFolder(id), OWNER_FILE)) ?? '';
  const pid = Number(owner.split(' ')[0]);
  return owner !== '' && processTag(pid) === owner;
}

/** PID and start time: a PID alone may have gone to another process. Undefined when there is no such process. */
function processTag(pid: number): string | undefined {
  const stat = readText(`/proc/${pid}/stat`);
  // The second field is the command in parentheses and may hold spaces; starttime is field 22 (proc(5)).
  const startTime = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  return startTime === undefined ? undefined : `${pid} ${startTime}`;
}

function killAllIn(names: readonly string[]): void {
  const inodes = new Set(names.map((name) => inodeOf(path.join(NETNS_FOLDER, name))));
  inodes.delete(undefined);
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    if (inodes.has(inodeOf(`/proc/${entry}/ns/net`))) kill(pid);
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself in between.
  }
}

function inodeOf(file: string): number | undefined {
  try {
    return statSync(file).ino;
  } catch {
    return undefined;
  }
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}
