// The state diagram of RFC 9293, with what this machine does on its edges.

const NODES = {
  close: [430, 36], listen: [130, 126], syn_sent: [730, 126], syn_recv: [130, 236],
  established: [430, 300], fin_wait1: [130, 392], close_wait: [730, 392], closing: [430, 442],
  fin_wait2: [130, 512], last_ack: [730, 512], time_wait: [430, 562], end: [430, 654],
};
// From, to, the way, where the label is.
const EDGES = [
  ['close', 'listen', 'M 360 40 L 180 102', [248, 70]],
  ['close', 'syn_sent', 'M 500 46 L 680 106', [566, 88]],
  ['syn_sent', 'close', 'M 740 102 C 735 50, 640 26, 504 28', [668, 40]],
  ['listen', 'syn_recv', 'M 130 148 L 130 212', [130, 184]],
  ['syn_sent', 'syn_recv', 'M 658 134 L 204 228', [430, 176]],
  ['syn_sent', 'established', 'M 705 148 L 500 282', [618, 214]],
  ['syn_recv', 'established', 'M 202 246 L 358 288', [280, 262]],
  ['established', 'fin_wait1', 'M 358 314 L 202 378', [280, 342]],
  ['established', 'close_wait', 'M 502 314 L 658 378', [580, 342]],
  ['fin_wait1', 'closing', 'M 202 402 L 356 434', [284, 412]],
  ['fin_wait1', 'fin_wait2', 'M 120 414 L 120 488', [114, 454]],
  ['fin_wait1', 'time_wait', 'M 176 414 L 372 538', [262, 472]],
  ['fin_wait2', 'time_wait', 'M 202 522 L 356 554', [272, 544]],
  ['closing', 'time_wait', 'M 430 464 L 430 538', [430, 504]],
  ['close_wait', 'last_ack', 'M 730 414 L 730 488', [730, 454]],
  ['last_ack', 'close', 'M 700 534 L 504 646', [614, 594]],
  ['time_wait', 'close', 'M 430 584 L 430 630', [430, 610]],
  ['fin_wait2', 'close', 'M 130 534 C 140 620, 230 652, 356 656', [198, 626]],
];
const FAILING = new Set(['syn_sent>close', 'fin_wait2>close']);
const edgeKey = (old, now) => `${old}>${now}`;

class Diagram {
  #edges = new Map();
  #nodes = new Map();

  // `choose(old, new)` is called when an edge is chosen.
  constructor(root, choose) {
    const arrow = svg('marker', { id: 'arrow', viewBox: '0 0 10 10', refX: 9, refY: 5, markerWidth: 9, markerHeight: 9, markerUnits: 'userSpaceOnUse', orient: 'auto' }, svg('path', { class: 'arrow', d: 'M 0 0 L 10 5 L 0 10 z' }));
    root.append(svg('defs', {}, arrow));
    for (const [old, now, way, [x, y]] of EDGES) {
      const label = svg('text', { x, y });
      const title = svg('title');
      const group = svg('g', { class: 'edge', role: 'button', tabindex: 0, 'aria-pressed': 'false' },
        title, svg('path', { class: 'hit', d: way }), svg('path', { class: 'line', d: way, 'marker-end': 'url(#arrow)' }), label);
      group.addEventListener('click', () => choose(old, now));
      group.addEventListener('keydown', (event) => {
        if (event.key === 'Enter' || event.key === ' ') {
          event.preventDefault();
          choose(old, now);
        }
      });
      this.#edges.set(edgeKey(old, now), { group, label, title });
      root.append(group);
    }
    for (const [name, [x, y]] of Object.entries(NODES)) {
      const state = name === 'end' ? 'close' : name;
      const word = svg('text', { x, y: y + 5 });
      word.textContent = stateWord(state);
      const count = svg('text', { class: 'count', x, y: y + 14 });
      const group = svg('g', { class: 'node' }, svg('rect', { x: x - 72, y: y - 22, width: 144, height: 44, rx: 8 }), word, count);
      this.#nodes.set(name, { group, word, count, y });
      root.append(group);
    }
  }

  update(totals, rates, sockets) {
    for (const [key, { group, label, title }] of this.#edges) {
      const total = totals.get(key) ?? 0;
      const perSecond = rates.get(key) ?? 0;
      setText(label, total === 0 ? '' : perSecond >= 0.05 ? `${rate(perSecond)}/s, ${compact(total)}` : compact(total));
      group.classList.toggle('busy', perSecond >= 0.05);
      group.classList.toggle('bad', FAILING.has(key) && total > 0);
      const [old, now] = key.split('>').map(stateWord);
      const words = `${old} to ${now}: ${grouped(total)}, ${rate(perSecond)} a second`;
      setText(title, words);
      setAttribute(group, 'aria-label', words);
    }
    for (const [name, { group, word, count, y }] of this.#nodes) {
      const number = sockets.get(name) ?? null;
      const known = number !== null;
      setText(count, known ? grouped(number) : '');
      setAttribute(word, 'y', String(known ? y - 2 : y + 5));
      group.classList.toggle('held', name === 'time_wait' && number > 0);
    }
  }

  choose(key) {
    for (const [own, { group }] of this.#edges) setAttribute(group, 'aria-pressed', String(own === key));
  }
}
