/** How many columns of a terminal a text takes. */

/** Combining marks stand on the character before them. */
const NOT_ON_TOP = /\P{M}/gu;
/** Characters of East Asian width "wide" (Unicode annex 11), nearly all of them, and emoji. */
const WIDE =
  /[\u1100-\u115f\u2e80-\u303e\u3041-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{1b2ff}\u{20000}-\u{3fffd}]|\p{Emoji_Presentation}/gu;
const NARROW = /^[\x20-\x7e]*$/;

export function textWidth(text: string): number {
  if (NARROW.test(text)) return text.length;
  return count(text, NOT_ON_TOP) + count(text, WIDE);
}

function count(text: string, pattern: RegExp): number {
  return text.match(pattern)?.length ?? 0;
}
