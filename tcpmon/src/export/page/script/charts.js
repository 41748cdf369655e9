// Live curves, drawn by uPlot. Names and present values stand below each as text: that is the
// legend, and what a screen reader has.

const SERIES = 6;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Hours, minutes and seconds, here.
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hourCycle: 'h23', hour: '2-digit', minute: '2-digit', second: '2-digit' });

class Chart {
  #figure;
  #options;
  #times = [];
  #values = new Map();
  #plot = null;
  #shown = '';
  #box = el('div', { class: 'plot', 'aria-hidden': 'true' });
  #list = el('ul', { class: 'series' });

  // options: format(value), max (of the y axis, at least), lines (values that are marked)
  constructor(figure, options) {
    this.#figure = figure;
    this.#options = options;
    figure.append(this.#box, el('figcaption', {}, this.#list));
    new ResizeObserver(() => this.#resize()).observe(this.#box);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#build());
  }

  // `points`: name -> value now; a name that is absent has none.
  add(time, points) {
    // A clock that was set back: a curve cannot go back.
    if (time <= this.#times.at(-1)) {
      this.#times = [];
      this.#values.clear();
    }
    this.#times.push(time);
    for (const name of points.keys()) {
      if (!this.#values.has(name)) this.#values.set(name, new Array(this.#times.length - 1).fill(null));
    }
    for (const [name, values] of this.#values) {
      values.push(points.get(name) ?? null);
      if (values.length > HISTORY) values.shift();
      if (values.every((value) => value === null)) this.#values.delete(name);
    }
    if (this.#times.length > HISTORY) this.#times.shift();
    this.#draw();
  }

  // A gap in all curves: what happened then is not known.
  gap() {
    const last = this.#times.at(-1);
    const open = [...this.#values.values()].some((values) => values.at(-1) !== null);
    if (open) this.add(last + 0.001, new Map());
  }

  // The largest of late, in an order that does not change with each report.
  #names() {
    const weight = ([, values]) => Math.max(...values.slice(-150).map((value) => value ?? 0));
    return [...this.#values].sort((a, b) => weight(b) - weight(a)).slice(0, SERIES).map(([name]) => name).sort();
  }

  #draw() {
    const names = this.#names();
    const shown = keyed(...names);
    if (!this.#plot || shown !== this.#shown) {
      this.#shown = shown;
      this.#build();
    } else {
      this.#plot.setData(this.#data(names));
    }
    const last = (name) => this.#values.get(name)?.at(-1) ?? null;
    keep(this.#list, names.map((name, place) => ({ name, place })), (item) => item.name,
      () => el('li', {}, el('span', { class: 'swatch' }), el('span', { class: 'name' }), el('span', { class: 'num' })),
      (node, { name, place }) => {
        const [swatch, label, value] = node.children;
        swatch.style.background = colour(`--s${place}`);
        setText(label, name);
        setAttribute(label, 'title', name);
        const now = last(name);
        setText(value, now === null ? '-' : this.#options.format(now));
      });
  }

  #data(names) {
    return [this.#times, ...names.map((name) => this.#values.get(name))];
  }

  #build() {
    const names = JSON.parse(this.#shown || '[]');
    const text = colour('--muted');
    const axis = { stroke: text, grid: { stroke: colour('--line'), width: 1 }, ticks: { stroke: colour('--line'), width: 1 }, font: '11px system-ui, sans-serif' };
    const format = this.#options.axis ?? this.#options.format;
    this.#plot?.destroy();
    this.#plot = new uPlot({
      width: Math.max(200, this.#box.clientWidth),
      height: 190,
      legend: { show: false },
      cursor: { y: false, drag: { setScale: false } },
      scales: {
        x: { time: true, range: (_, low, high) => [Math.min(low ?? 0, (high ?? 0) - 120), high ?? 0] },
        y: { range: (_, low, high) => [0, Math.max(this.#options.max ?? 1, (high ?? 0) * 1.08)] },
      },
      axes: [{ ...axis, space: 76, values: (_, ticks) => ticks.map(clock) }, { ...axis, size: 58, values: (_, ticks) => ticks.map((value) => format(value)) }],
      series: [{}, ...names.map((name, place) => ({ label: name, stroke: colour(`--s${place}`), width: 2, points: { show: false } }))],
      hooks: { draw: [(plot) => this.#lines(plot)] },
    }, this.#data(names), this.#box);
  }

  #lines(plot) {
    for (const value of this.#options.lines ?? []) {
      const y = Math.round(plot.valToPos(value, 'y', true));
      if (y < plot.bbox.top) continue;
      plot.ctx.save();
      plot.ctx.strokeStyle = colour(value >= 95 ? '--bad' : '--waiting');
      plot.ctx.setLineDash([6, 4]);
      plot.ctx.beginPath();
      plot.ctx.moveTo(plot.bbox.left, y);
      plot.ctx.lineTo(plot.bbox.left + plot.bbox.width, y);
      plot.ctx.stroke();
      plot.ctx.restore();
    }
  }

  #resize() {
    if (this.#plot && this.#box.clientWidth > 0) this.#plot.setSize({ width: this.#box.clientWidth, height: 190 });
  }
}
