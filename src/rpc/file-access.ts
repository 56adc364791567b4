/** What channels read from disk: trust roots and tokens. `sys/files.ts` fits; a sibling layer, so it comes in as a parameter. */
export interface FileAccess {
  /** Whole content of a regular file. Throws when there is none, or when it is over `maxBytes`. */
  read(path: string, maxBytes: number): Uint8Array;
}
