// Puts the parts together.

const charts = {
  use: new Chart(byId('chart-use'), { format: (value) => `${value.toFixed(value < 10 ? 1 : 0)} %`, axis: (value) => `${value} %`, max: 100, lines: [80, 95] }),
  timeWait: new Chart(byId('chart-tw'), { format: grouped, axis: compact, max: 10 }),
  connections: new Chart(byId('chart-conn'), { format: rate, axis: compact, max: 1 }),
};
const stream = new Stream(() => diagram.choose(''));
const rates = new Rates();
let latest = null;
let restartedAt = -Infinity;
// So long the page says that the daemon was started anew.
const RESTART_SHOWN_MS = 60000;

// The stream of one edge. The daemon filters by one state; the rarer of the two is asked for.
const diagram = new Diagram(byId('diagram'), (old, now) => {
  diagram.choose(edgeKey(old, now));
  const common = new Set(['close', 'established']);
  stream.open(`${stateWord(old)} \u2192 ${stateWord(now)}`, { state: common.has(old) ? now : old }, (event) => event.old === old && event.new === now);
});
const actions = {
  watch(what, filter) {
    diagram.choose('');
    stream.open(what, filter);
  },
};

function sum(rows, nameOf, valueOf) {
  const sums = new Map();
  for (const row of rows) {
    const value = valueOf(row);
    if (value !== null && value !== undefined) sums.set(nameOf(row), (sums.get(nameOf(row)) ?? 0) + value);
  }
  return sums;
}

function show(report) {
  showVerdict(report);
  showAlerts(report);
  showNamespaces(report);
  showPorts(report, actions);
  showTimeWait(report);
  showAdvice(report);
  showFailures(report);
  showNotes(report);
}

function curves(report, at, counts) {
  const ports = report.ports ?? [];
  const sources = new Set(ports.map((row) => row.netns + row.src)).size;
  charts.use.add(at, sum(ports, (row) => endpoint(row.dst, row.dport) + (sources > 1 ? ` from ${printable(row.src)} in ${printable(row.netns)}` : ''), (row) => row.utilization_ratio * 100));
  const owned = (report.time_wait ?? []).some((row) => row.sockets !== null && row.sockets !== undefined);
  charts.timeWait.add(at, owned
    ? sum(report.time_wait, (row) => printable(row.service), (row) => row.sockets)
    : sum([...counts], ([netns]) => printable(netns), ([, states]) => states.get('time_wait') ?? null));
  charts.connections.add(at, sum(report.connections ?? [], (row) => `${printable(row.service)} (${row.role === 'active' ? 'connects' : 'accepts'})`, (row) => row.per_s));
}

function onReport(report) {
  const restarted = latest !== null && report.uptime_s < latest.uptime_s;
  if (restarted) restartedAt = performance.now();
  const fresh = performance.now() - restartedAt < RESTART_SHOWN_MS;
  const at = Date.parse(report.ts) / 1000;
  const same = latest !== null && latest.ts === report.ts;
  latest = report;
  document.body.classList.remove('lost-data');
  setAttribute(byId('link'), 'data-state', 'up');
  setText(byId('link-text'), fresh ? 'Connected; the daemon was started anew' : 'Connected');
  setText(byId('host'), `on ${printable(report.host)}, watched for ${span(report.uptime_s)}`);
  document.title = `${report.alerts?.length ? `(${report.alerts.length}) ` : ''}tcpmon ${printable(report.host)}`;
  show(report);
  const counts = socketCounts(report);
  showSockets(counts);
  if (same) return;
  const totals = sum(report.transitions ?? [], (row) => edgeKey(row.old, row.new), (row) => row.total);
  const perSecond = rates.of(at, report.uptime_s, totals);
  const byState = new Map();
  for (const states of counts.values()) for (const [state, count] of states) byState.set(state, (byState.get(state) ?? 0) + count);
  diagram.update(totals, perSecond, byState);
  showTransitions(totals, perSecond);
  if (restarted) for (const chart of Object.values(charts)) chart.gap();
  curves(report, at, counts);
}

function onLost(why, since) {
  document.body.classList.add('lost-data');
  setAttribute(byId('link'), 'data-state', 'lost');
  setText(byId('link-text'), `Daemon lost since ${new Date(since).toLocaleTimeString()}: ${why}. Trying again.`);
  setAttribute(byId('verdict'), 'data-severity', 'lost');
  setText(byId('headline'), 'The daemon is lost');
  setText(byId('subline'), latest ? `What is shown is from ${latest.ts.slice(0, 19).replace('T', ' ')} UTC. The page connects again by itself.` : 'The page connects by itself as soon as it answers.');
  for (const chart of Object.values(charts)) chart.gap();
}

byId('filter').addEventListener('submit', (event) => event.preventDefault());
byId('filter').addEventListener('input', () => {
  if (latest) show(latest);
});
watch(onReport, onLost);
