// Elements, made and kept. Text goes in as text: there is no way from here to markup, and the
// page's policy (Trusted Types) allows none.

const byId = (id) => document.getElementById(id);

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const SVG = 'http://www.w3.org/2000/svg';
function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Writes only what changes, so that screen readers and selections are left in peace.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// Makes the children of `parent` those of `items`, in that order. An item that stays keeps its
// element, and with it focus and what is unfolded.
function keep(parent, items, keyOf, make, update) {
  const old = parent.kept ?? new Map();
  const kept = new Map();
  let place = parent.firstElementChild;
  for (const item of items) {
    let key = keyOf(item);
    while (kept.has(key)) key += '\u0001';
    const node = old.get(key) ?? make(item);
    kept.set(key, node);
    update(node, item);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const [key, node] of old) if (!kept.has(key)) node.remove();
  parent.kept = kept;
}

const keyed = (...parts) => JSON.stringify(parts);
