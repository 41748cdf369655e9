// The link to the daemon: a report every two seconds, and what is known while there is none.

const EVERY_MS = 2000;
const HIDDEN_EVERY_MS = 10000;
const PATIENCE_MS = 8000;
// Half an hour of reports.
const HISTORY = 900;

// Calls `onReport(report)` for each report, `onLost(why, sinceMs)` while none comes.
function watch(onReport, onLost) {
  let lostSince = null;
  let timer = 0;

  async function once() {
    clearTimeout(timer);
    try {
      // A second old will do: so all pages that are open share one report.
      const answer = await fetch('api/v1/report', {
        cache: 'no-store',
        headers: { 'Cache-Control': 'max-age=1' },
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      if (!answer.ok) throw new Error(`it answers ${answer.status}: ${(await answer.text()).slice(0, 200).trim()}`);
      const report = await answer.json();
      if (report.version !== 1) throw new Error(`its report is of version ${report.version}, this page knows 1: reload the page`);
      lostSince = null;
      onReport(report);
    } catch (error) {
      lostSince ??= Date.now();
      const why = error instanceof TypeError ? 'it does not answer' : error.name === 'TimeoutError' ? 'it does not answer in time' : error.message;
      onLost(why, lostSince);
    }
    timer = setTimeout(once, document.hidden ? HIDDEN_EVERY_MS : EVERY_MS);
  }

  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) once();
  });
  once();
}

// What changed since the report before, a second: counters become rates. A daemon that began
// anew counts from 0, and has no report before.
class Rates {
  #before = null;

  // `counts`: key -> total. Gives key -> per second.
  of(at, uptime, counts) {
    const before = this.#before;
    const seconds = before ? at - before.at : 0;
    const rates = new Map();
    if (before && seconds > 0.2 && uptime >= before.uptime) {
      for (const [key, total] of counts) rates.set(key, Math.max(0, total - (before.counts.get(key) ?? 0)) / seconds);
    }
    this.#before = { at, uptime, counts };
    return rates;
  }
}
