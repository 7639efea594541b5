'use strict';
// What all figures of the report share: elements, axes, and a frame with a table as CSV and a picture as SVG.
// Everything that comes from a run goes through `textContent`.

const report = JSON.parse(document.getElementById('data').textContent);
const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 480, HEIGHT = 260, LEFT = 52, RIGHT = 8, TOP = 8, BOTTOM = 24;

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'class') made.className = value;
    else if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
};
const shape = (name, attributes, text) => {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
};
const colour = (run) => `var(--run-${run % 8})`;
const swatch = (n) => element('span', { class: 'swatch', style: `--colour:${colour(n)}` });
const short = (value) => {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return String(Number(value.toPrecision(5)));
};

const ticks = (low, high, isLog) => {
  if (isLog) {
    const found = [];
    const step = Math.max(1, Math.ceil((Math.log10(high) - Math.log10(low)) / 5));
    for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power += step) found.push(10 ** power);
    if (found.length > 1) return found;
  }
  const rough = (high - low) / 5 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
};

const quoted = (value) => {
  const text = String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

// A figure in a frame. Those that are made of it have `draw()`, and `rows()` for the CSV: heads, then cells.
class Figure {
  constructor(name, label, ...buttons) {
    this.name = name;
    this.svg = shape('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', tabindex: 0, 'aria-label': `${name}: ${label}` });
    this.readout = element('output');
    this.figure = element('figure', { class: 'chart' },
      element('header', {}, element('h3', {}, name), element('span', {}, ...buttons,
        element('button', { type: 'button', title: 'copy the numbers as CSV', onclick: () => this.copy() }, 'CSV'),
        element('button', { type: 'button', title: 'save the picture as SVG', onclick: () => this.save() }, 'SVG'))),
      this.svg, this.readout);
  }

  // Empties the picture and draws axes over the given ranges. `bottom` leaves room for the name of x.
  axes({ x: [xLow, xHigh], y: [yLow, yHigh], isLogX = false, isLogY = false, xName, bottom = BOTTOM }) {
    const [f, g] = [isLogX ? Math.log : (v) => v, isLogY ? Math.log : (v) => v];
    const pad = (g(yHigh) - g(yLow)) * 0.04;
    const [low, high] = [g(yLow) - pad, g(yHigh) + pad];
    const sx = (x) => LEFT + (f(x) - f(xLow)) / (f(xHigh) - f(xLow)) * (WIDTH - LEFT - RIGHT);
    const sy = (y) => HEIGHT - bottom - (g(y) - low) / (high - low) * (HEIGHT - TOP - bottom);
    this.svg.replaceChildren();
    for (const y of ticks(yLow, yHigh, isLogY)) {
      this.svg.append(shape('line', { class: 'grid', x1: LEFT, x2: WIDTH - RIGHT, y1: sy(y), y2: sy(y) }));
      this.svg.append(shape('text', { x: LEFT - 6, y: sy(y) + 4, 'text-anchor': 'end' }, short(y)));
    }
    for (const x of ticks(xLow, xHigh, isLogX)) {
      const half = 4 * short(x).length;
      this.svg.append(shape('text', { x: Math.min(Math.max(sx(x), half), WIDTH - half), y: HEIGHT - bottom + 18, 'text-anchor': 'middle' }, short(x)));
    }
    if (xName !== undefined) this.svg.append(shape('text', { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, 'text-anchor': 'middle' }, xName));
    return { sx, sy };
  }

  nothing() {
    this.svg.replaceChildren(shape('text', { x: WIDTH / 2, y: HEIGHT / 2, 'text-anchor': 'middle' }, 'nothing to show'));
  }

  csv() {
    return this.rows().map((row) => row.map(quoted).join(',') + '\n').join('');
  }

  copy() {
    const text = this.csv();
    const done = () => { this.readout.textContent = 'copied'; };
    // A page from disk may not be allowed to; then the text is there to be taken.
    const offer = () => {
      const area = element('textarea', { rows: 4, 'aria-label': 'CSV' });
      area.value = text;
      this.readout.replaceChildren(area);
      area.select();
      if (document.execCommand('copy')) done();
    };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, offer); else offer();
  }

  save() {
    const copy = this.svg.cloneNode(true);
    copy.setAttribute('xmlns', SVG);
    copy.setAttribute('width', WIDTH);
    copy.setAttribute('height', HEIGHT);
    // Variables mean nothing outside the page.
    const originals = this.svg.querySelectorAll('*');
    copy.querySelectorAll('*').forEach((node, i) => {
      const style = getComputedStyle(originals[i]);
      for (const key of ['stroke', 'stroke-dasharray', 'fill', 'fill-opacity', 'opacity', 'stroke-width', 'font']) node.style[key] = style[key];
    });
    const background = shape('rect', { width: WIDTH, height: HEIGHT });
    background.style.fill = getComputedStyle(this.figure).backgroundColor;
    copy.prepend(background);
    const link = element('a', { download: `${this.name.replace(/[^\w.-]+/g, '_')}.svg`, href: `data:image/svg+xml,${encodeURIComponent(copy.outerHTML)}` });
    link.click();
    this.readout.textContent = `saved as ${link.download}`;
  }
}
