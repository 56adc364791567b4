/** X.509 times (RFC 5280 §4.1.2.5) and RFC 3339 text to and from Unix milliseconds, in UTC and without `Date`. */
import { malformed, TAG } from './der.ts';

const DAY_MS = 86_400_000;
/** Days from 0000-03-01 to 1970-01-01 in the proleptic Gregorian calendar. */
const EPOCH_DAYS = 719_468;

interface CivilTime {
  readonly year: number;
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
}

/** Milliseconds of a UTCTime or GeneralizedTime in the one form RFC 5280 allows: seconds present, no fraction, `Z`. */
export function readX509Time(tag: number, content: Uint8Array): number {
  const yearDigits = tag === TAG.utcTime ? 2 : 4;
  if (tag !== TAG.utcTime && tag !== TAG.generalizedTime) throw malformed('validity is no time');
  if (content.length !== yearDigits + 11 || content.at(-1) !== 0x5a) throw malformed('time form');
  const digits = (from: number, count: number): number => readDigits(content, from, count);
  const year = digits(0, yearDigits);
  return civilToMs({
    // Two digits mean 1950-2049 (RFC 5280 §4.1.2.5.1).
    year: yearDigits === 4 ? year : year + (year < 50 ? 2000 : 1900),
    month: digits(yearDigits, 2),
    day: digits(yearDigits + 2, 2),
    hour: digits(yearDigits + 4, 2),
    minute: digits(yearDigits + 6, 2),
    second: digits(yearDigits + 8, 2),
  });
}

/** Tag and text of `ms` (whole seconds, rounded down) as X.509 wants it: UTCTime through 2049. */
export function writeX509Time(ms: number): { readonly tag: number; readonly text: string } {
  const time = msToCivil(ms);
  const rest = [time.month, time.day, time.hour, time.minute, time.second].map(twoDigits).join('');
  if (time.year >= 1950 && time.year < 2050) return { tag: TAG.utcTime, text: `${twoDigits(time.year % 100)}${rest}Z` };
  return { tag: TAG.generalizedTime, text: `${String(time.year).padStart(4, '0')}${rest}Z` };
}

/** `2026-03-02T07:58:00Z`. */
export function rfc3339Seconds(ms: number): string {
  const time = msToCivil(ms);
  const date = `${String(time.year).padStart(4, '0')}-${twoDigits(time.month)}-${twoDigits(time.day)}`;
  return `${date}T${twoDigits(time.hour)}:${twoDigits(time.minute)}:${twoDigits(time.second)}Z`;
}

function readDigits(content: Uint8Array, from: number, count: number): number {
  let value = 0;
  for (let i = from; i < from + count; i++) {
    const digit = (content[i] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) throw malformed('time digit');
    value = value * 10 + digit;
  }
  return value;
}

function civilToMs(time: CivilTime): number {
  const isReal =
    time.month >= 1 &&
    time.month <= 12 &&
    time.day >= 1 &&
    time.day <= daysInMonth(time.year, time.month) &&
    time.hour < 24 &&
    time.minute < 60 &&
    time.second < 60;
  if (!isReal) throw malformed('time does not exist');
  return daysFromEpoch(time) * DAY_MS + ((time.hour * 60 + time.minute) * 60 + time.second) * 1000;
}

/** Years start in March here, so that the leap day is the last of its year. */
function daysFromEpoch({ year, month, day }: CivilTime): number {
  const marchYear = month <= 2 ? year - 1 : year;
  const monthFromMarch = (month + 9) % 12;
  const leapDays = Math.floor(marchYear / 4) - Math.floor(marchYear / 100) + Math.floor(marchYear / 400);
  return marchYear * 365 + leapDays + Math.floor((153 * monthFromMarch + 2) / 5) + day - 1 - EPOCH_DAYS;
}

function msToCivil(ms: number): CivilTime {
  const days = Math.floor(ms / DAY_MS);
  const seconds = Math.floor((ms - days * DAY_MS) / 1000);
  let year = Math.floor((days + EPOCH_DAYS) / 365.2425);
  while (daysFromEpoch({ ...MARCH_FIRST, year: year + 1 }) <= days) year += 1;
  while (daysFromEpoch({ ...MARCH_FIRST, year }) > days) year -= 1;
  const dayOfYear = days - daysFromEpoch({ ...MARCH_FIRST, year });
  const monthFromMarch = Math.floor((5 * dayOfYear + 2) / 153);
  return {
    year: monthFromMarch >= 10 ? year + 1 : year,
    month: ((monthFromMarch + 2) % 12) + 1,
    day: dayOfYear - Math.floor((153 * monthFromMarch + 2) / 5) + 1,
    hour: Math.floor(seconds / 3600),
    minute: Math.floor(seconds / 60) % 60,
    second: seconds % 60,
  };
}

const MARCH_FIRST: CivilTime = { year: 0, month: 3, day: 1, hour: 0, minute: 0, second: 0 };

function daysInMonth(year: number, month: number): number {
  if (month !== 2) return [4, 6, 9, 11].includes(month) ? 30 : 31;
  return year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0) ? 29 : 28;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}
