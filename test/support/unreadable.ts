/** Ways in which a file cannot be read that hold for root too, who passes every mode. */
import { mkdirSync, rmSync, symlinkSync } from 'node:fs';

export const UNREADABLE = [
  { name: 'is a directory', make: (path: string) => mkdirSync(path), error: 'is not a regular file' },
  { name: 'is a link to nothing', make: (path: string) => symlinkSync('gone', path), error: 'ENOENT' },
  { name: 'is a link to itself', make: (path: string) => symlinkSync(path, path), error: 'ELOOP' },
  // Nothing is mapped at address 0.
  { name: 'fails as it is read', make: (path: string) => symlinkSync('/proc/self/mem', path), error: 'EIO' },
] as const;

/** Puts what cannot be read in the place of the file. */
export function makeUnreadable(path: string, { make }: (typeof UNREADABLE)[number]): void {
  rmSync(path, { force: true, recursive: true });
  make(path);
}
