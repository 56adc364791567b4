/**
 * Accepted xDS responses on disk, appended as they come: an agent that restarts while its control plane is away begins
 * with what it had. A record is its length and CRC-32 (4 bytes each, big endian), then a `DeltaDiscoveryResponse`; what a
 * crash cut short ends the file. Any beginning of the file is a state that once was: the control plane brings it up to date.
 */
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import { hasCode, messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { closeFd, duplicate } from '../sys/duplicate.ts';
import { makeDirectory } from '../sys/files.ts';
import { AliveResources } from './alive-resources.ts';

export interface ResponseLogOptions {
  readonly path: string;
  /** The file loses its name when it is made: it lives as long as somebody has it open. */
  readonly isNameless?: boolean;
  /** The log of another process, read in place of the file at `path`, and owned. */
  readonly inheritedFd?: number | undefined;
  /** Whose state it is, for example address and node: a file of another scope is not read. */
  readonly scope: string;
  /** Largest file that is read or kept, bytes. */
  readonly maxBytes: number;
  /** The file is written anew when this much was appended, bytes, and as much as it had before. */
  readonly compactBytes?: number;
  readonly log: Logger;
}

const FORMAT = 'culvert-xds-1';
const HEADER_BYTES = 8;
const COMPACT_BYTES = 32 * 1024 * 1024;
/** Responses not yet written, bytes: a disk that hangs must not fill the memory. */
const MAX_WAITING_BYTES = 256 * 1024 * 1024;

export class ResponseLog implements AsyncDisposable {
  readonly #options: ResponseLogOptions;
  /** Work in order; never rejects. */
  #tail: Promise<void> = Promise.resolve();
  #file: FileHandle | undefined;
  #waitingBytes = 0;
  #writtenBytes = 0;
  #appendedBytes = 0;
  #isGivenUp = false;

  constructor(options: ResponseLogOptions) {
    this.#options = options;
  }

  /**
   * What the file has, as few encoded responses per type: all resources alive at its end. Empty when there is no file, or none that
   * can be used; the log says why. To be called before `append`.
   */
  async restore(): Promise<readonly Uint8Array[]> {
    let restored: readonly Uint8Array[] = [];
    await this.#enqueue(async () => {
      const { inheritedFd } = this.#options;
      const inherited = inheritedFd === undefined ? [] : await this.#load(descriptorPath(inheritedFd));
      if (inheritedFd !== undefined) closeFd(inheritedFd);
      restored = inherited.length > 0 ? inherited : await this.#alive();
      // What was read counts, also when the disk takes nothing any more.
      await this.#replace(restored);
    });
    return restored;
  }

  /** A descriptor of all that was appended so far, the caller's; `undefined`: it has no file. */
  async descriptor(): Promise<number | undefined> {
    await this.#tail;
    return this.#isGivenUp || this.#file === undefined ? undefined : duplicate(this.#file.fd);
  }

  /** Nothing more is written: another process has a log of its own at the same place. */
  retire(): void {
    this.#isGivenUp = true;
  }

  /** Queues an encoded response. A failure to write is logged once and ends the log: the file is removed, nothing else is affected. */
  append(response: Uint8Array): void {
    if (this.#isGivenUp) return;
    const record = recordOf(response);
    this.#waitingBytes += record.length;
    if (this.#waitingBytes > MAX_WAITING_BYTES) {
      void this.#enqueue(() => Promise.reject(new Error('the disk does not keep up')));
      return;
    }
    void this.#enqueue(async () => {
      this.#waitingBytes -= record.length;
      this.#file ??= await this.#create();
      await this.#file.appendFile(record);
      this.#appendedBytes += record.length;
      const { compactBytes = COMPACT_BYTES } = this.#options;
      if (this.#appendedBytes > Math.max(compactBytes, this.#writtenBytes)) await this.#rewrite();
    });
  }

  /** Resolves when everything appended so far is written. */
  async flushed(): Promise<void> {
    await this.#tail;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#tail;
    this.#isGivenUp = true;
    await this.#file?.close();
  }

  #enqueue(work: () => Promise<void>): Promise<void> {
    this.#tail = this.#tail.then(async () => {
      if (this.#isGivenUp) return;
      try {
        await work();
      } catch (error) {
        await this.#giveUp(error);
      }
    });
    return this.#tail;
  }

  /** Without a file the next start waits for the control plane; with a torn one it could believe what is long gone. */
  async #giveUp(error: unknown): Promise<void> {
    this.#isGivenUp = true;
    const { path, log } = this.#options;
    log.warn?.('mesh state is no longer kept on disk', { path, error: messageOf(error) });
    await this.#file?.close().catch(() => undefined);
    this.#file = undefined;
    for (const left of [path, draftOf(path)]) await rm(left, { force: true }).catch(() => undefined);
  }

  /** Forgets what is dead in the file. */
  async #rewrite(): Promise<void> {
    await this.#replace(await this.#alive());
  }

  async #alive(): Promise<readonly Uint8Array[]> {
    const { path, isNameless } = this.#options;
    if (isNameless !== true) return await this.#load(path);
    return this.#file === undefined ? [] : await this.#load(descriptorPath(this.#file.fd));
  }

  async #replace(alive: readonly Uint8Array[]): Promise<void> {
    const { path, isNameless } = this.#options;
    await this.#file?.close();
    const draft = draftOf(path);
    this.#file = await this.#create(draft);
    for (const response of alive) await this.#file.appendFile(recordOf(response));
    if (isNameless !== true) {
      await this.#file.datasync();
      await rename(draft, path);
    }
    this.#writtenBytes = (await this.#file.stat()).size;
    this.#appendedBytes = 0;
  }

  async #create(path = this.#options.path): Promise<FileHandle> {
    makeDirectory(dirname(path));
    const file = await open(path, 'w', 0o600);
    try {
      if (this.#options.isNameless === true) await rm(path);
      await file.appendFile(this.#firstLine());
      return file;
    } catch (error) {
      // Left to the collector of garbage it would end the process.
      await file.close();
      throw error;
    }
  }

  #firstLine(): string {
    return `${JSON.stringify({ format: FORMAT, scope: this.#options.scope })}\n`;
  }

  async #load(path: string): Promise<readonly Uint8Array[]> {
    const content = await this.#content(path);
    if (content === undefined) return [];
    const firstLine = Buffer.from(this.#firstLine());
    if (!content.subarray(0, firstLine.length).equals(firstLine)) {
      this.#options.log.info?.('mesh state on disk is of another node or control plane, not used', {
        path,
      });
      return [];
    }
    const alive = new AliveResources();
    for (const response of records(content.subarray(firstLine.length))) await alive.take(response);
    return await alive.responses();
  }

  async #content(path: string): Promise<Buffer | undefined> {
    const { maxBytes, log } = this.#options;
    let file: FileHandle | undefined;
    try {
      file = await open(path, 'r');
      const { size } = await file.stat();
      if (size <= maxBytes) return await file.readFile();
      log.warn?.('mesh state on disk is too large, not used', { path, bytes: size, limit: maxBytes });
    } catch (error) {
      const isAbsent = hasCode(error, 'ENOENT');
      if (!isAbsent) log.warn?.('mesh state on disk cannot be read, not used', { path, error: messageOf(error) });
    } finally {
      await file?.close();
    }
    return undefined;
  }
}

function draftOf(path: string): string {
  return `${path}.new`;
}

/** Opened anew it is read from its beginning, whatever its name is by now. */
function descriptorPath(fd: number): string {
  return `/proc/self/fd/${fd}`;
}

function recordOf(body: Uint8Array): Buffer {
  const record = Buffer.allocUnsafe(HEADER_BYTES + body.length);
  record.writeUInt32BE(body.length, 0);
  record.writeUInt32BE(crc32(body), 4);
  record.set(body, HEADER_BYTES);
  return record;
}

/** Ends at the first record that is not whole. */
function* records(content: Buffer): Generator<Uint8Array> {
  for (let at = 0; at + HEADER_BYTES <= content.length; ) {
    const end = at + HEADER_BYTES + content.readUInt32BE(at);
    const body = content.subarray(at + HEADER_BYTES, end);
    // Zeros, as some file systems leave them behind after a power cut, would be records without end.
    if (body.length === 0 || end > content.length || crc32(body) !== content.readUInt32BE(at + 4)) return;
    yield body;
    at = end;
  }
}
