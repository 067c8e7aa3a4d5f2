// Numbers with units, for people.

/** Seconds as "4 ms", "1.2 s", "3 min 4 s", "2 h 5 min", "3 d 4 h". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  const sign = seconds < 0 ? "-" : "";
  const size = Math.abs(seconds);
  if (size < 0.9995) return `${sign}${Math.round(size * 1000)} ms`;
  if (size < 59.95) return `${sign}${size.toFixed(1)} s`;
  const whole = Math.floor(size);
  const [days, hours, minutes] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${sign}${days} d ${hours} h`;
  return hours ? `${sign}${hours} h ${minutes} min` : `${sign}${minutes} min ${whole % 60} s`;
}

/** Bytes as "12 KiB", "3.4 MiB". */
export function bytes(count) {
  if (count === null || count === undefined) return "";
  let value = count;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024 || unit === "GiB") return `${value < 10 && unit !== "B" ? value.toFixed(1) : Math.round(value)} ${unit}`;
    value /= 1024;
  }
  return "";
}

/** A whole number with thin spaces between groups of three digits. */
export function count(number) {
  return String(number ?? "").replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009");
}

/** Milliseconds as "0.4 ms", "12.3 ms", "238 ms", "12.3 s". */
export function milliseconds(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 9999.5) return `${(value / 1000).toFixed(1)} s`;
  return `${size < 99.95 ? value.toFixed(1) : Math.round(value)} ms`;
}

/** A part of a whole as "0 %", "0.2 %", "12 %"; "–" of nothing. */
export function share(part, whole) {
  if (!whole) return "–";
  const percent = 100 * part / whole;
  return `${percent && percent < 9.95 ? percent.toFixed(1) : Math.round(percent)} %`;
}

/** Events per second as "0/s", "0.2/s", "21/s". */
export function rate(events, seconds) {
  if (!seconds) return "–";
  const value = events / seconds;
  return `${value && value < 9.95 ? value.toFixed(1) : count(Math.round(value))}/s`;
}

/** Seconds since the epoch as the local time of day. */
export function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}
