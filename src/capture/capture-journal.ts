/**
 * Which pods carry our redirection, kept in a file of the run directory: rules outlive the agent on purpose, so a pod that
 * left the list while no agent ran would else be refused for ever.
 */
import { existsSync } from 'node:fs';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { readBounded, writeAtomically } from '../sys/files.ts';
import type { Netns, Sys } from '../sys/sys.ts';
import { type Decoder, fieldsOf, Issues, list, Place, text } from '../xds/decode-value.ts';
import { readDocument } from '../xds/read-document.ts';
import { idText, openUnlessGone } from './netns-claims.ts';
import type { CapturedPod } from './pod-source.ts';

const MAX_FILE_BYTES = 16 * 1024 * 1024;
/** Gathers the start of a node into one write; a crash within it loses at most what happened in it. */
const WRITE_DELAY_MS = 100;
/** After one that failed: a full disk gets room again. */
const RETRY_MS = 10_000;

export interface JournalDeps {
  readonly sys: Sys;
  readonly clock: Clock;
  readonly log: Logger;
}

/** What is needed to take the rules away again, and to name the pod while doing so. */
interface Entry {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly netns: string;
  /** The namespace itself: the path may lead to another one by now. */
  readonly netnsId: string;
}

export class CaptureJournal implements Disposable {
  readonly #path: string;
  readonly #deps: JournalDeps;
  readonly #entries: Map<string, Entry>;
  #pendingWrite: Disposable | undefined;
  /** As the log has it. */
  #isFailing = false;

  constructor(path: string, deps: JournalDeps) {
    this.#path = path;
    this.#deps = deps;
    this.#entries = new Map(this.#load().map((entry) => [entry.uid, entry]));
  }

  /** The pod is about to be redirected. */
  note({ uid, name, namespace, netnsPath }: CapturedPod, { id }: Netns): void {
    const netnsId = idText(id);
    const known = this.#entries.get(uid);
    if (known?.netns === netnsPath && known.netnsId === netnsId) return;
    this.#entries.set(uid, { uid, name, namespace, netns: netnsPath, netnsId });
    this.#writeSoon();
  }

  /** The pod's redirection is gone. */
  forget(uid: string): void {
    if (this.#entries.delete(uid)) this.#writeSoon();
  }

  /** Pods of earlier agents whose namespace still is what it was. Those without are forgotten. */
  left(): CapturedPod[] {
    for (const entry of this.#entries.values()) if (!this.#isSame(entry)) this.forget(entry.uid);
    return [...this.#entries.values()].map(asPod);
  }

  [Symbol.dispose](): void {
    if (this.#pendingWrite !== undefined) this.#save();
    this.#pendingWrite?.[Symbol.dispose]();
  }

  #isSame({ netns, netnsId }: Entry): boolean {
    try {
      using now = openUnlessGone(this.#deps.sys, netns);
      return now !== undefined && idText(now.id) === netnsId;
    } catch {
      // It cannot be told now: who takes its rules away tries until it can.
      return true;
    }
  }

  #writeSoon(): void {
    this.#pendingWrite ??= this.#deps.clock.after(WRITE_DELAY_MS, () => this.#save());
  }

  /** A run directory that takes no file must not stop capture; it costs the clean-up after a restart, and is said. */
  #save(): void {
    this.#pendingWrite?.[Symbol.dispose]();
    this.#pendingWrite = undefined;
    try {
      writeAtomically(this.#path, JSON.stringify({ pods: [...this.#entries.values()] }));
      this.#isFailing = false;
    } catch (error) {
      this.#failed(messageOf(error));
    }
  }

  #failed(error: string): void {
    const { log, clock } = this.#deps;
    if (!this.#isFailing) log.warn?.('journal of captured pods not written, trying again', { path: this.#path, error });
    this.#isFailing = true;
    this.#pendingWrite = clock.after(RETRY_MS, () => this.#save());
  }

  #load(): readonly Entry[] {
    if (!existsSync(this.#path)) return [];
    try {
      return decode(readBounded(this.#path, MAX_FILE_BYTES).toString('utf8'));
    } catch (error) {
      this.#deps.log.warn?.('journal of captured pods begun anew', { path: this.#path, error: messageOf(error) });
      return [];
    }
  }
}

function decode(content: string): readonly Entry[] {
  const document = readDocument(content);
  if (document.kind === 'broken') throw new Error(document.problems[0]?.problem);
  const issues = new Issues();
  const place = new Place(issues);
  const entries = fieldsOf(document.value, place)?.required('pods', list(entryOf)) ?? [];
  if (issues.count > 0) throw new Error(issues.list[0]?.problem);
  return entries;
}

const entryOf: Decoder<Entry> = (value, place) => {
  const fields = fieldsOf(value, place);
  const uid = fields?.required('uid', text);
  const name = fields?.required('name', text);
  const namespace = fields?.required('namespace', text);
  const netns = fields?.required('netns', text);
  const netnsId = fields?.required('netnsId', text);
  if (uid === undefined || name === undefined || namespace === undefined) return undefined;
  return netns === undefined || netnsId === undefined ? undefined : { uid, name, namespace, netns, netnsId };
};

function asPod({ uid, name, namespace, netns }: Entry): CapturedPod {
  const options = { isIngressMode: false, rerouteInterfaces: [] };
  return { uid, name, namespace, serviceAccount: '', netnsPath: netns, options };
}
