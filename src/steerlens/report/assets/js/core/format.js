/** Numbers and colours as text. */

/** @typedef {number | null | undefined} Maybe */

/**
 * A number with a fixed number of decimals and a true minus sign, never as negative zero; a dash if it is not known.
 * @param {Maybe} value
 * @param {number} [digits]
 */
export function fixed(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  return value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");
}

/**
 * A share in [0,1] as a percentage.
 * @param {Maybe} value
 * @param {number} [digits]
 */
export function percent(value, digits = 0) {
  return value === null || value === undefined ? "–" : `${fixed(100 * value, digits)} %`;
}

/**
 * 1st, 2nd, 3rd, 4th.
 * @param {number} n
 */
export function ordinal(n) {
  const teen = n % 100 > 10 && n % 100 < 14;
  return n + (["th", "st", "nd", "rd"][teen ? 0 : n % 10] || "th");
}

/**
 * Colour of a value on a ramp of `#rrggbb`; values outside the scale take the colour of its end.
 * @param {number} value
 * @param {[number, number]} scale
 * @param {string[]} ramp
 */
export function colour(value, [low, high], ramp) {
  const place = Math.min(Math.max((value - low) / (high - low), 0), 1) * (ramp.length - 1);
  const index = Math.min(Math.floor(place), ramp.length - 2);
  const [a, b] = [channels(ramp[index]), channels(ramp[index + 1])];
  return `rgb(${a.map((channel, i) => Math.round(channel + (b[i] - channel) * (place - index))).join(",")})`;
}

/** @param {string} hex */
const channels = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
