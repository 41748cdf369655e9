// The report on the page, section by section.

const SEVERITIES = ['critical', 'warning', 'info'];

function showVerdict(report) {
  const alerts = report.alerts ?? [];
  const counts = SEVERITIES.map((severity) => [alerts.filter((alert) => alert.severity === severity).length, severity]).filter(([count]) => count > 0);
  const verdict = byId('verdict');
  setAttribute(verdict, 'data-severity', counts.length ? counts[0][1] : 'none');
  setText(byId('headline'), counts.length
    ? `${alerts.length} ${alerts.length === 1 ? 'alert fires' : 'alerts fire'}: ${counts.map(([count, severity]) => `${count} ${severity}`).join(', ')}`
    : 'Nothing is wrong: no alert fires');
  const fullest = (report.ports ?? [])[0];
  // The first alert is the worst: what it says comes before any figure.
  const worst = alerts.length ? `${printable(alerts[0].summary).replace(/\.$/, '')}. ` : '';
  setText(byId('subline'), worst + (fullest
    ? `Fullest destination: ${endpoint(fullest.dst, fullest.dport)} at ${percent(fullest.utilization_ratio)}, ${outlook(fullest)}${fullest.owners?.length ? `; most by ${printable(fullest.owners[0].service)}` : ''}.`
    : 'No local port is in use that connect() chose.'));
}

const heldBy = (owners) => (owners ?? []).map((owner) => `${printable(owner.service)} ${grouped(owner.ports)}`).join(', ');

// Text whose options stay with their command: a line that ends in "sysctl -" cannot be read.
function setAdvice(node, text) {
  if (node.textContent === text) return;
  node.replaceChildren(...text.split(/(\S+ -\w+)/).map((piece, place) => (place % 2 ? el('span', { class: 'whole' }, piece) : piece)));
}

function showAlerts(report) {
  const alerts = report.alerts ?? [];
  // What the alert before said of the same destination already is not said again.
  let before = null;
  byId('alerts-section').hidden = alerts.length === 0;
  keep(byId('alerts'), alerts, (alert) => keyed(alert.alert, alert.netns, alert.src, alert.dst, alert.dport, alert.summary.replace(/\d+/g, '#')),
    () => el('article', { class: 'alert' },
      el('h3', {}, el('span', { class: 'badge' }), el('span')), el('p', { class: 'mono' }), el('p'), el('p', { class: 'muted' }), el('ul')),
    (node, alert) => {
      setAttribute(node, 'data-severity', alert.severity);
      const [title, where, summary, owners, advice] = node.children;
      setText(title.children[0], alert.severity);
      setText(title.children[1], printable(alert.alert));
      const since = (Date.parse(report.ts) - Date.parse(alert.since)) / 1000;
      const route = alert.dst ? `${printable(alert.src)} \u2192 ${endpoint(alert.dst, alert.dport)} ` : '';
      setText(where, `${route}in ${printable(alert.netns)}${since >= 0 ? `, for ${span(since)}` : ''}`);
      setText(summary, printable(alert.summary));
      setText(owners, alert.owners?.length ? `Ports held by ${heldBy(alert.owners)}.` : '');
      const same = before && keyed(before.netns, before.dst, before.dport) === keyed(alert.netns, alert.dst, alert.dport) ? before : null;
      owners.hidden = !alert.owners?.length || (same !== null && keyed(same.owners) === keyed(alert.owners));
      const fresh = (alert.advice ?? []).filter((words) => !same?.advice?.includes(words));
      keep(advice, fresh.map(printable), (words) => words, () => el('li'), setAdvice);
      before = alert;
    });
}

const SEGMENTS = [['live', 'live'], ['waiting', 'time_wait'], ['reusable', 'time_wait_reusable']];

function portRow(report) {
  const drill = el('button', { type: 'button', class: 'drill mono', 'aria-expanded': 'false' });
  const bar = el('div', { class: 'bar', 'aria-hidden': 'true' }, ...SEGMENTS.map(([name]) => el('span', { class: name })));
  const row = el('tr', {},
    el('td', { 'data-label': 'Destination' }, drill),
    el('td', { 'data-label': 'From', class: 'mono' }),
    el('td', { 'data-label': 'Namespace' }),
    el('td', { 'data-label': 'Used', class: 'figure' }, el('div', {}, el('span'), el('strong'), bar)),
    el('td', { 'data-label': 'Outlook' }),
    el('td', { 'data-label': 'Owners' }));
  const detail = el('tr', { class: 'detail' });
  detail.hidden = true;
  detail.id = `detail-${(portRow.count = (portRow.count ?? 0) + 1)}`;
  drill.setAttribute('aria-controls', detail.id);
  const owners = el('tbody');
  const facts = el('dl');
  const live = el('button', { type: 'button' }, 'Watch it live');
  detail.append(el('td', { colspan: 6 }, el('div', { class: 'detail-grid' },
    el('div', {}, el('h3', {}, 'Owners'), el('table', { class: 'owners' }, owners)),
    el('div', {}, el('h3', {}, 'Ports'), facts),
    el('div', {}, live))));
  const body = el('tbody', {}, row, detail);
  body.parts = { drill, bar, row, detail, owners, facts };
  drill.addEventListener('click', () => {
    detail.hidden = !detail.hidden;
    setAttribute(drill, 'aria-expanded', String(!detail.hidden));
  });
  live.addEventListener('click', () => {
    const { dst, dport, netns } = body.item;
    report.watch(`towards ${endpoint(dst, dport)}`, { addr: dst, dport, netns });
  });
  return body;
}

function fillPortRow(body, item) {
  body.item = item;
  const { drill, bar, row, owners, facts } = body.parts;
  const blocked = item.live + item.time_wait;
  setText(drill, endpoint(item.dst, item.dport));
  setText(row.children[1], printable(item.src));
  setText(row.children[2], printable(item.netns));
  const [text, share] = row.children[3].firstElementChild.children;
  setText(text, `${grouped(blocked)} / ${grouped(item.capacity)}, `);
  setText(share, percent(item.utilization_ratio));
  setAttribute(share, 'data-level', item.utilization_ratio >= 0.95 ? 'high' : item.utilization_ratio >= 0.8 ? 'mid' : 'low');
  SEGMENTS.forEach(([, member], place) => {
    const part = item.capacity > 0 ? Math.min(100, (item[member] / item.capacity) * 100) : 0;
    const width = item[member] > 0 ? `max(2px, ${part.toFixed(2)}%)` : '0';
    if (bar.children[place].style.width !== width) bar.children[place].style.width = width;
  });
  setText(row.children[4], outlook(item));
  const all = item.owners ?? [];
  const more = all.length > 2 ? `, ${all.length - 2} more` : '';
  setText(row.children[5], all.length ? heldBy(all.slice(0, 2)) + more : 'unknown');
  const held = Math.max(1, item.live + item.time_wait + item.time_wait_reusable);
  keep(owners, all, (owner) => owner.service,
    () => el('tr', {}, el('td'), el('td', { class: 'num' }), el('td', { class: 'num muted' })),
    (node, owner) => {
      setText(node.children[0], printable(owner.service));
      setText(node.children[1], grouped(owner.ports));
      setText(node.children[2], percent(owner.ports / held));
    });
  const lines = [['live', item.live], ['TIME_WAIT, in the way', item.time_wait], ['TIME_WAIT, may be taken over', item.time_wait_reusable], ['free', Math.max(0, item.capacity - blocked)], ['capacity', item.capacity]];
  if (facts.childElementCount === 0) for (const [name] of lines) facts.append(el('dt', {}, name), el('dd'));
  lines.forEach(([, count], place) => setText(facts.children[place * 2 + 1], grouped(count)));
}

// What is asked for by the boxes above the table of destinations.
function wantedRow(item) {
  const netns = byId('netns').value;
  if (netns && item.netns !== netns) return false;
  const words = byId('find').value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = [item.netns, item.src, endpoint(item.dst, item.dport), item.service ?? '', ...(item.owners ?? []).map((owner) => owner.service)].join(' ').toLowerCase();
  return words.every((word) => text.includes(word));
}

function showPorts(report, actions) {
  const table = byId('ports');
  const rows = (report.ports ?? []).filter(wantedRow);
  // Each destination is a tbody of two rows; the head stays the first child.
  table.list ??= { kept: new Map() };
  const shell = {
    get kept() { return table.list.kept; },
    set kept(kept) { table.list.kept = kept; },
    get firstElementChild() { return table.tHead.nextElementSibling; },
    insertBefore: (node, place) => table.insertBefore(node, place),
  };
  keep(shell, rows, (item) => keyed(item.netns, item.src, item.dst, item.dport), () => portRow(actions), fillPortRow);
  const none = byId('ports-none');
  none.hidden = rows.length > 0;
  setText(none, report.ports?.length ? 'None that fits.' : 'None that connect() chose.');
}

// Fills the cells of a row, as made for `columns`: [label, class, text].
function cells(parent, items, keyOf, columns) {
  keep(parent, items, keyOf,
    () => el('tr', {}, ...columns.map(([label, kind]) => el('td', { 'data-label': label, class: kind }))),
    (node, item) => columns.forEach(([, , text], place) => setText(node.children[place], text(item))));
}

function showTimeWait(report) {
  const rows = (report.time_wait ?? []).filter(wantedRow);
  cells(byId('tw').tBodies[0], rows, (row) => keyed(row.netns, row.service, row.dst, row.dport), [
    ['Service', null, (row) => printable(row.service)],
    ['To', 'mono', (row) => (row.dst ? endpoint(row.dst, row.dport) : '-')],
    ['Namespace', null, (row) => printable(row.netns)],
    ['Now', 'num', (row) => (row.sockets === null || row.sockets === undefined ? '-' : grouped(row.sockets))],
    ['A second', 'num', (row) => rate(row.entered_per_s)],
    ['In all', 'num', (row) => grouped(row.entered_total)],
  ]);
  byId('tw-none').hidden = rows.length > 0;
}

function showFailures(report) {
  const rows = (report.failures ?? []).filter(wantedRow);
  const table = byId('failures');
  cells(table.tBodies[0], rows, (row) => keyed(row.netns, row.service, row.src, row.dst, row.dport), [
    ['Service', null, (row) => printable(row.service)],
    ['To', 'mono', (row) => endpoint(row.dst, row.dport)],
    ['Namespace', null, (row) => printable(row.netns)],
    ['In all', 'num', (row) => grouped(row.total)],
  ]);
  table.hidden = rows.length === 0;
  byId('failures-none').hidden = rows.length > 0;
}

// Sockets by namespace and state; the time-wait table's own size where no snapshot told.
function socketCounts(report) {
  const counts = new Map();
  const add = (netns, state, count) => {
    if (!counts.has(netns)) counts.set(netns, new Map());
    counts.get(netns).set(state, (counts.get(netns).get(state) ?? 0) + count);
  };
  for (const row of report.sockets ?? []) add(row.netns, row.state, row.sockets);
  for (const row of report.namespaces ?? []) {
    if (!counts.has(row.netns) && row.time_wait !== null && row.time_wait !== undefined) add(row.netns, 'time_wait', row.time_wait);
  }
  return counts;
}

function showSockets(counts) {
  const rows = [...counts].sort(([a], [b]) => (a < b ? -1 : 1));
  cells(byId('sockets').tBodies[0], rows, ([netns]) => netns, [
    ['Namespace', null, ([netns]) => printable(netns)],
    ['Sockets', null, ([, states]) => [...states].filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]).map(([state, count]) => `${stateWord(state)} ${grouped(count)}`).join(', ') || 'none'],
  ]);
  byId('sockets-none').hidden = rows.length > 0;
}

function showAdvice(report) {
  const rows = report.advice ?? [];
  keep(byId('advice'), rows, (row) => keyed(row.netns, row.id, row.title),
    () => el('li', {}, el('strong'), el('p'), el('pre'), el('p', { class: 'small' })),
    (node, row) => {
      const [title, reason, command, small] = node.children;
      const where = row.netns && row.netns !== 'host' ? ` (network namespace ${row.netns})` : '';
      setText(title, printable(row.title + where));
      setText(reason, printable(row.reason));
      setText(command, (row.command ?? '').split('\n').map(printable).join('\n'));
      command.hidden = !row.command;
      setText(small, [['Effect', row.effect], ['Risk', row.risk], ['Not if', row.unless]].filter(([, text]) => text).map(([label, text]) => `${label}: ${printable(text)}`).join(' \u00b7 '));
    });
  byId('advice-none').hidden = rows.length > 0;
}

function showNotes(report) {
  const notes = (report.notes ?? []).map(printable);
  const { ring = 0, subscriber = 0 } = report.loss ?? {};
  if (ring + subscriber > 0) {
    notes.push(`${grouped(ring + subscriber)} events were lost to streams (${grouped(ring)} by the ring, ${grouped(subscriber)} by slow readers); no total is affected.`);
  }
  byId('notes-section').hidden = notes.length === 0;
  keep(byId('notes'), notes, (note) => note.replace(/\d+/g, '#'), () => el('li'), (node, note) => setText(node, note));
}

function showNamespaces(report) {
  const names = [...new Set((report.namespaces ?? []).map((row) => row.netns))].sort();
  const chosen = byId('netns');
  keep(chosen, ['', ...names], (name) => name, () => el('option'), (node, name) => {
    if (node.value !== name || node.textContent === '') {
      node.value = name;
      setText(node, name === '' ? 'all' : printable(name));
    }
  });
}

function showTransitions(totals, rates) {
  const rows = [...totals].filter(([, total]) => total > 0).sort((a, b) => b[1] - a[1]);
  cells(byId('transitions').tBodies[0], rows, ([key]) => key, [
    ['From', null, ([key]) => stateWord(key.split('>')[0])],
    ['To', null, ([key]) => stateWord(key.split('>')[1])],
    ['A second', 'num', ([key]) => rate(rates.get(key))],
    ['In all', 'num', ([, total]) => grouped(total)],
  ]);
}
