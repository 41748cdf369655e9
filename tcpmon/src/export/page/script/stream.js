// The live stream, filtered: server-sent events into a bounded table.

const ROWS = 200;
const DRAW_MS = 250;

class Stream {
  #source = null;
  #wanted = () => true;
  #waiting = [];
  #paused = false;
  #seen = 0;
  #lost = 0;
  #what = '';
  #onClose;

  constructor(onClose) {
    this.#onClose = onClose;
    byId('stream-close').addEventListener('click', () => this.close());
    byId('stream-pause').addEventListener('click', () => this.#pause(!this.#paused));
    setInterval(() => this.#draw(), DRAW_MS);
  }

  // query: parameters of /api/v1/events; wanted(event): what these cannot tell.
  open(what, query, wanted = () => true) {
    this.#source?.close();
    this.#what = what;
    this.#wanted = wanted;
    this.#waiting = [];
    this.#seen = 0;
    this.#lost = 0;
    byId('stream-rows').replaceChildren();
    this.#pause(false);
    byId('stream').hidden = false;
    setText(byId('stream-title'), `Live: ${what}`);
    this.#say('connecting ...');
    const source = new EventSource(`api/v1/events?${new URLSearchParams(query)}`);
    source.onopen = () => this.#say('waiting for the next one ...');
    source.onerror = () => this.#say(source.readyState === EventSource.CLOSED ? 'refused by the daemon' : 'the daemon is lost; connecting again ...');
    source.onmessage = (message) => this.#take(message.data);
    this.#source = source;
    byId('stream').scrollIntoView({ block: 'nearest' });
    byId('stream-title').focus({ preventScroll: true });
  }

  close() {
    this.#source?.close();
    this.#source = null;
    byId('stream').hidden = true;
    this.#onClose();
  }

  #pause(paused) {
    this.#paused = paused;
    setAttribute(byId('stream-pause'), 'aria-pressed', String(paused));
    setText(byId('stream-pause'), paused ? 'Go on' : 'Pause');
  }

  #take(data) {
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    if (event.lost) {
      this.#lost += event.lost;
    } else if (!this.#wanted(event)) {
      return;
    } else {
      this.#seen += 1;
    }
    if (this.#paused) return;
    this.#waiting.push(event);
    if (this.#waiting.length > ROWS) this.#waiting.shift();
  }

  #draw() {
    if (!this.#source) return;
    if (this.#seen > 0) {
      const lost = this.#lost > 0 ? `, ${grouped(this.#lost)} lost` : '';
      setText(byId('stream-state'), this.#source.readyState === EventSource.OPEN
        ? `${grouped(this.#seen)} seen${lost}; the last ${ROWS} are shown${this.#paused ? '; paused' : ''}`
        : 'the daemon is lost; connecting again ...');
    }
    if (this.#waiting.length === 0) return;
    const rows = byId('stream-rows');
    const made = this.#waiting.map((event) => (event.lost ? this.#gap(event) : this.#row(event)));
    this.#waiting = [];
    rows.prepend(...made.reverse());
    while (rows.childElementCount > ROWS) rows.lastElementChild.remove();
  }

  #gap(event) {
    const where = event.where === 'ring' ? 'the kernel\u2019s buffer was full' : 'this page reads too slowly';
    return el('tr', { class: 'gap' }, el('td', { colspan: 6 }, `${grouped(event.lost)} events are missing here: ${where}`));
  }

  #row(event) {
    const owner = event.service ?? event.comm;
    const extra = event.port_exhausted ? ' (no free port)' : event.reason ? ` (${event.reason})` : event.substate === 'fin_wait2' ? ' (FIN awaited)' : '';
    const time = event.ts.slice(11, 23);
    return el('tr', {},
      el('td', { class: 'mono', title: event.ts }, time),
      el('td', {}, owner ? printable(owner) + (event.pid ? ` ${event.pid}` : '') : '-'),
      el('td', { class: 'mono' }, endpoint(event.saddr, event.sport)),
      el('td', { class: 'mono' }, endpoint(event.daddr, event.dport)),
      el('td', {}, `${stateWord(event.old)} \u2192 ${stateWord(event.new)}${printable(extra)}`),
      el('td', { class: 'num' }, micros(event.duration_us)));
  }

  #say(words) {
    setText(byId('stream-state'), words);
  }
}
