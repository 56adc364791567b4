/** Pods from a file, or from all `.yaml`, `.yml` and `.json` files of a directory (format: `pod-list.ts`), watched. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf } from '../base/errors.ts';
import { readBounded, watchPath } from '../sys/files.ts';
import { parsePodList, requireDistinct } from './pod-list.ts';
import type { CapturedPod, PodSink, PodSource } from './pod-source.ts';

/** About ten thousand pods. */
const MAX_FILE_BYTES = 4 * 1024 * 1024;
const MAX_FILES = 1_000;
const LIST_FILE = /^[^.].*\.(ya?ml|json)$/;

export interface StaticSourceOptions {
  readonly path: string;
  readonly clock: Clock;
}

/**
 * Any mistake in any file, or a file that cannot be read, refuses the whole list and the last good one stays: a slip of an
 * editor must never take a pod out of the mesh. A file deleted from a directory does: its pods have left.
 */
export function staticSource({ path, clock }: StaticSourceOptions): PodSource {
  return {
    start(sink) {
      const told = new Told(sink);
      const load = (): void => {
        const loaded = loadPods(path);
        if (loaded instanceof MeshError) sink.problem(loaded);
        else told.become(loaded);
      };
      const watcher = watchPath(path, { clock, onChange: load });
      load();
      return watcher;
    },
  };
}

/** What the sink knows, so that it hears of differences only. */
class Told {
  readonly #sink: PodSink;
  #pods: ReadonlyMap<string, CapturedPod> = new Map();
  #isSynced = false;

  constructor(sink: PodSink) {
    this.#sink = sink;
  }

  become(pods: ReadonlyMap<string, CapturedPod>): void {
    this.#sink.problem(undefined);
    for (const uid of this.#pods.keys()) {
      if (!pods.has(uid)) void this.#sink.remove(uid);
    }
    for (const [uid, pod] of pods) {
      if (!isDeepStrictEqual(pod, this.#pods.get(uid))) void this.#sink.upsert(pod);
    }
    this.#pods = pods;
    if (!this.#isSynced) this.#sink.synced();
    this.#isSynced = true;
  }
}

function loadPods(path: string): ReadonlyMap<string, CapturedPod> | MeshError {
  try {
    const found = listFiles(path).flatMap((file) =>
      parsePodList(readBounded(file, MAX_FILE_BYTES).toString('utf8'), file).map((pod) => ({ pod, file })),
    );
    requireDistinct(found.map(({ pod, file }) => ({ ...pod, file })));
    return new Map(found.map(({ pod }) => [pod.uid, pod]));
  } catch (error) {
    if (error instanceof MeshError) return error;
    return new MeshError('CV-ENROL-SOURCE', `${path}: ${messageOf(error)}`, { file: path }, { cause: error });
  }
}

function listFiles(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  const names = readdirSync(path).filter((name) => LIST_FILE.test(name));
  if (names.length > MAX_FILES) throw new Error(`more than ${MAX_FILES} files`);
  return names.sort().map((name) => join(path, name));
}
