/** Pods from a file, or from all `.yaml`, `.yml` and `.json` files of a directory (format: `pod-list.ts`), watched. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Clock } from '../base/clock.ts';
import { MeshError, messageOf } from '../base/errors.ts';
import { oneAtATime } from '../base/one-at-a-time.ts';
import { readBounded, watchPath } from '../sys/files.ts';
import { type PodFile, type PodFilesResult, parsePodFiles, parsePodFilesApart } from './pod-list.ts';
import type { CapturedPod, PodSink, PodSource } from './pod-source.ts';

/** Of the file, or of all in the directory: about ten thousand pods. */
const MAX_BYTES = 4 * 1024 * 1024;
const MAX_FILES = 1_000;
/** Longer lists are parsed in another thread: YAML takes 0.1 s for so much. */
const MAX_CHARS_HERE = 64 * 1024;
const LIST_FILE = /^[^.].*\.(ya?ml|json)$/;
const CURE = 'list the pods of this node only';

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
      let isOver = false;
      const reload = oneAtATime(async () => {
        const result = await podsOf(path).catch((error: unknown) => unread(path, error));
        if (!isOver) told.take(result);
      });
      const watcher = watchPath(path, { clock, onChange: reload });
      told.take(podsOfHere(path));
      return {
        [Symbol.dispose]() {
          isOver = true;
          watcher[Symbol.dispose]();
        },
      };
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

  take(result: PodFilesResult): void {
    if (result.kind === 'pods') this.#become(new Map(result.pods.map((pod) => [pod.uid, pod])));
    else this.#sink.problem(new MeshError('CV-ENROL-SOURCE', result.message, result.fields));
  }

  #become(pods: ReadonlyMap<string, CapturedPod>): void {
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

async function podsOf(path: string): Promise<PodFilesResult> {
  const files = readFiles(path);
  const chars = files.reduce((sum, { text }) => sum + text.length, 0);
  return chars > MAX_CHARS_HERE ? await parsePodFilesApart(files) : parsePodFiles(files);
}

/** However long it takes: at the start no pod of it is served yet. */
function podsOfHere(path: string): PodFilesResult {
  try {
    return parsePodFiles(readFiles(path));
  } catch (error) {
    return unread(path, error);
  }
}

function unread(path: string, error: unknown): PodFilesResult {
  return { kind: 'refused', message: `${path}: ${messageOf(error)}`, fields: { file: path } };
}

function readFiles(path: string): readonly PodFile[] {
  let bytes = 0;
  return listFiles(path).map((file) => {
    const content = readBounded(file, MAX_BYTES);
    bytes += content.length;
    if (bytes > MAX_BYTES) throw new Error(`its files have more than ${MAX_BYTES} bytes together; ${CURE}`);
    return { file, text: content.toString('utf8') };
  });
}

function listFiles(path: string): string[] {
  if (!statSync(path).isDirectory()) return [path];
  const names = readdirSync(path).filter((name) => LIST_FILE.test(name));
  if (names.length > MAX_FILES) throw new Error(`more than ${MAX_FILES} files; ${CURE}`);
  return names.sort().map((name) => join(path, name));
}
