// Figures and names as people read them; the same words as `tcpmon report`.

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const grouped = (count) => whole.format(count ?? 0);

function compact(count) {
  if (count < 10000) return grouped(count);
  for (const [size, unit] of [[1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (count >= size) {
      const value = count / size;
      return value.toFixed(value < 100 ? 1 : 0) + unit;
    }
  }
  return grouped(count);
}

function rate(perSecond) {
  if (!perSecond) return '0';
  return perSecond < 100 ? perSecond.toFixed(1) : grouped(perSecond);
}

// Rounded down: what is not quite full is not shown as full.
function percent(ratio) {
  if (ratio > 0 && ratio < 0.01) return 'under 1 %';
  return Math.floor(ratio * 100 + 1e-9) + ' %';
}

function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  const two = (a, unit, b, small) => (b === 0 ? `${a} ${unit}` : `${a} ${unit} ${b} ${small}`);
  if (s < 120) return `${s} s`;
  if (s < 3600) return two(Math.floor(s / 60), 'min', s % 60, 's');
  if (s < 86400) return two(Math.floor(s / 3600), 'h', Math.floor(s / 60) % 60, 'min');
  return two(Math.floor(s / 86400), 'd', Math.floor(s / 3600) % 24, 'h');
}

function micros(us) {
  if (us === null || us === undefined) return '-';
  if (us < 1000) return `${us} us`;
  if (us < 1e6) return `${(us / 1000).toFixed(1)} ms`;
  return us < 1e7 ? `${(us / 1e6).toFixed(1)} s` : span(us / 1e6);
}

// Control characters, and those that turn text around or have no width, would make a name look
// like another one.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
const printable = (text) => String(text ?? '').replace(UNSEEN, '?');

function endpoint(address, port) {
  const host = printable(address);
  return `${host.includes(':') ? `[${host}]` : host}:${port === null || port === undefined ? 'any' : port}`;
}

const WORDS = { close: 'CLOSE', fin_wait1: 'FIN_WAIT1', fin_wait2: 'FIN_WAIT2' };
const stateWord = (state) => WORDS[state] ?? printable(state).toUpperCase();

function outlook(row) {
  if (row.utilization_ratio >= 1) return 'none is left';
  if (row.eta_s !== null && row.eta_s !== undefined) return row.eta_s < 1 ? 'running out now' : `run out in ${span(row.eta_s)}`;
  if (row.settles_at_ratio !== null && row.settles_at_ratio !== undefined) {
    return `settles at ${percent(row.settles_at_ratio)}`;
  }
  return 'not at this rate';
}
