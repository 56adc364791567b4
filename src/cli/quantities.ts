/** Times and sizes for people. */

const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
] as const;

/** The two largest units: `3d4h`, `12m5s`, `450ms`. */
export function durationText(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.trunc(ms))}ms`;
  const first = UNITS.findIndex(([, size]) => ms >= size);
  let rest = ms;
  let text = '';
  for (const [unit, size] of UNITS.slice(first, first + 2)) {
    const count = Math.trunc(rest / size);
    rest -= count * size;
    if (count > 0) text += `${count}${unit}`;
  }
  return text;
}

/** `1023 B`, `12.5 KiB`, `3.0 GiB`. */
export function bytesText(bytes: number | undefined): string {
  if (bytes === undefined) return '?';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  return power === 0 ? `${bytes} B` : `${(bytes / 1024 ** power).toFixed(1)} ${units[power]}`;
}
