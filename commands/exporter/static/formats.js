/** How the status page writes numbers, spans and instants. A value is rounded first, then its unit is chosen. */

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });

export const count = (value) => whole.format(value);
export const timeOf = (seconds) => clock.format(new Date(seconds * 1000));
export const memory = (bytes) => `${count(bytes / 2 ** 20)} MiB`;

/** A number in about three digits: 7.5, 310, 1.25k, 2M. */
export function compact(value) {
  if (value < 10) return value % 1 ? value.toFixed(1) : count(value);
  const rounded = +value.toPrecision(3);
  if (rounded < 1000) return count(value);
  return rounded < 1e6 ? `${rounded / 1000}k` : `${rounded / 1e6}M`;
}

export function milliseconds(value) {
  if (value < 1) return value >= 0.005 ? `${value.toFixed(2)} ms` : "0 ms";
  const rounded = +value.toPrecision(value < 100 ? 2 : 3);
  return rounded < 1000 ? `${rounded} ms` : `${rounded / 1000} s`;
}

/** The time; with the date if it is not today. */
export function instant(seconds) {
  const then = new Date(seconds * 1000);
  return then.toDateString() === new Date().toDateString() ? clock.format(then)
    : `${then.toLocaleDateString(undefined, { day: "numeric", month: "short" })} ${clock.format(then)}`;
}

/** A span, in at most two units. */
export function span(seconds) {
  if (seconds < 1) return milliseconds(Math.round(seconds * 1000));
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const rounded = Math.round(seconds);
  if (rounded < 120) return `${rounded} s`;
  if (rounded < 7200) return `${Math.floor(rounded / 60)} min ${rounded % 60} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.round(seconds / 86400)} days`;
}
